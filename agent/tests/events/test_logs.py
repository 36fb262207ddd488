"""`pipedai-worker logs RUN` shows what a run of this machine does, until it ends, and does a terminal no harm."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipedai_worker import cli
from pipedai_worker.disk import spool
from pipedai_worker.disk.durable import private_directory, write_private
from pipedai_worker.disk.spool import shown
from pipedai_worker.identity import WorkerConfig

from .parts import written

RUN = "0192f0c1-2345-7000-8000-000000000001"
WORKER = "0192f0c1-2345-7000-8000-000000000000"

Logs = Callable[..., tuple[int, list[str], str]]


def event(seq: int, text: str = "on", kind: str = "message", **data: Any) -> dict[str, Any]:
    at = f"2026-01-02T03:04:{seq % 60:02}.000Z"
    return {"seq": seq, "at": at, "type": kind, "text": text, "data": data or None}


@pytest.fixture(autouse=True)
def _utc() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


@pytest.fixture
def logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Logs:
    """Run `pipedai-worker logs`. Return its exit code, the lines that it printed, and what it logged."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(spool, "LOOK_SECONDS", 0.01)
    WorkerConfig(WORKER, "wkt_x", "http://127.0.0.1:9", "").save(tmp_path / "worker.json")

    def run(*arguments: str) -> tuple[int, list[str], str]:
        code = cli.main(["logs", RUN, "--config", "worker.json", *arguments])
        printed = capsys.readouterr()
        return code, printed.out.splitlines(), printed.err

    return run


def test_the_events_on_this_machine_are_followed_to_the_end_of_the_run(
    logs: Logs, tmp_path: Path
) -> None:
    state = tmp_path / "worker.state" / WORKER
    for folder in ("events", "held"):
        private_directory(state / folder)
    writer = written(state / "events" / f"{RUN}.ndjson", 600)
    code, lines, _ = logs("--after", "590")
    assert code == 0
    assert [line.split()[-1] for line in lines] == [str(seq) for seq in range(591, 601)]
    code, lines, said = logs("--after", "600")
    assert (code, lines) == (0, [])
    assert "The run has no events after number 600 on this machine." in said
    held = state / "held" / f"{RUN}.json"
    write_private(held, b"{}")
    assert len(logs("--no-follow")[1]) == 600

    seen = []
    path = state / "events" / f"{RUN}.ndjson"
    for each in spool.from_file(path, 598, lambda: not held.exists()):
        seen.append(each["seq"])
        if each["seq"] == 600:
            # The run goes on, and ends.
            writer.add("message", "more", None)
            held.unlink()
    assert seen == [599, 600, 601]


def test_events_that_are_not_here_are_said_to_be_elsewhere(logs: Logs) -> None:
    code, lines, said = logs()
    assert (code, lines) == (1, [])
    assert f"This machine has no events of run {RUN}. `pipedai run logs {RUN}` asks" in said


@pytest.mark.parametrize("arguments", [["nonsense"], [RUN, "--after", "-1"], []])
def test_bad_arguments_end_with_code_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["logs", *arguments])
    assert end.value.code == 2


@pytest.mark.parametrize(
    ("told", "line"),
    [
        (event(1, "a\nb\n"), f"03:04:01 message     a\n{' ' * 21}b"),
        (event(1, "\x1b[2J\ta\x9b\u202eb\r"), "03:04:01 message     \\x1b[2J    a\\x9b\\u202eb\\r"),
        (
            event(1, "look_up", "tool_call", tool="look_up", input={"day": "\x1b"}),
            '03:04:01 tool_call   look_up {"day": "\\u001b"}',
        ),
        (
            event(1, "", "status", subtype="newer"),
            '03:04:01 status      {"subtype": "newer"}',
        ),
        (event(1, "", "\x1btype"), "03:04:01 \\x1btype"),
        ({"seq": 1, "at": "?", "type": None, "text": 5, "data": "x" * 400}, None),
    ],
)
def test_an_event_is_shown_without_what_a_terminal_acts_upon(
    told: dict[str, Any], line: str | None
) -> None:
    if line is None:
        line = f'--:--:-- None        "{"x" * 298}…'
    assert shown(told) == line
