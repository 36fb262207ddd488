"""Runs the README's tour and docs/first-trigger.md on a served API, block by block, as a newcomer would paste them."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pip
import pytest

from pipedai.env import BASE_DIR
from testing.processes.scheduler_process import scheduling
from testing.processes.web_process import free_port
from testing.processes.worker_process import until

pytestmark = pytest.mark.long

# What the last lines of each section's output contain if all went well.
PROMISES = {
    "People: an account, a workspace, an environment": [r'"role": "owner"'],
    "Keys: one for your scripts, one for one worker": [r'"prefix": "pwk"', r'"prefix": "wrk"'],
    "A worker": [r'"hostname": "build-1"'],
    "A trigger, and a run of it": [
        r'"hasMcpHeaders": true',
        r"HTTP/1.1 200 OK",
        r"idempotent-replayed: true",
        r"SUMMARISE WHAT HAPPENED OVERNIGHT\.",
        r'"status": "succeeded"',
    ],
    "The worker's protocol, by hand": [
        r'"prompt": "Summarise what happened overnight\."',
        r'"Authorization": "Bearer a-secret-of-yours"',
        r"^claimed$",
        r"^running$",
        r'"cancelRequested": false',
    ],
    "Canceling": [
        r"^True$",
        r"^canceled$",
        r'"shortMessage": "Stopped as asked\."',
        r"HTTP/1.1 204 No Content",
    ],
}


FIRST_TRIGGER = {
    "1. The service": [r'"status": ?"ok"'],
    "2. An account, and keys": [r"^Your password is "],
    "3. The machine": [r"^pass  "],
    "4. The trigger": [r"07:00", r"It is \w+day", r'"status": "succeeded"'],
    "5. Be told": [r'"event": "channel.test"'],
    "6. Let it fail": [r'"kind": "trigger_failing"', r'"trigger_failing"'],
}


def tour() -> dict[str, str]:
    """Returns the tour's shell commands by heading. Those before the first heading belong to ''."""
    readme = (BASE_DIR / "README.md").read_text()
    found = re.search(r"^## A tour with curl\n(.*?)^## ", readme, re.MULTILINE | re.DOTALL)
    assert found is not None
    return sections(found[1], "###")


def sections(text: str, mark: str) -> dict[str, str]:
    """Returns the shell commands below each heading with this mark, and those before the first one under ''."""
    heading, *rest = re.split(rf"^{mark} (.*)\n", text, flags=re.MULTILINE)
    parts = {"": heading} | dict(zip(rest[::2], rest[1::2], strict=True))
    return {
        name: "".join(re.findall(r"^```sh\n(.*?)^```$", part, re.MULTILINE | re.DOTALL))
        for name, part in parts.items()
    }


def test_the_tour_has_the_sections_that_are_tested():
    assert list(tour()) == ["", *PROMISES]


def test_the_tour_works_command_by_command_and_once_more(server, tmp_path):
    blocks = tour()
    worker = "A worker"
    blocks[worker] = replaced(blocks[worker], ".venv/bin/python", sys.executable)
    promised = [PROMISES.get(name, []) for name in blocks]
    port = str(urlsplit(server.url).port)
    check([*blocks.values()] * 2, promised * 2, TMPDIR=str(tmp_path), PORT=port)
    assert not list(tmp_path.glob("tmp.*"))  # the tour removes its temporary files


def test_the_first_trigger_runs_and_its_failure_and_its_recovery_are_mailed(
    server, own_database, tmp_path
):
    blocks = sections((BASE_DIR / "docs" / "first-trigger.md").read_text(), "##")
    assert list(blocks) == ["", *FIRST_TRIGGER, "What next"]
    # The machine has a copy of a compiled pip, and the stand-in for claude.
    quick = f"{sys.executable} {BASE_DIR / 'bin/tests/quick_venv.py'} worker {Path(pip.__file__).parent}"
    machine, trigger = "3. The machine", "4. The trigger"
    blocks[machine] = replaced(blocks[machine], "python3 -m venv worker", quick)
    tools = "python3 bin/demo_tools.py 8099\n"
    blocks[trigger] = replaced(blocks[trigger], tools, "")
    programs, data, port = tmp_path / "bin", tmp_path / "data", str(free_port())
    programs.mkdir()
    claude = programs / "claude"
    claude.write_text(
        f'#!/bin/sh\nexec {sys.executable} {BASE_DIR}/agent/pipedai_worker/standin.py "$@"\n'
    )
    claude.chmod(0o755)
    serving = subprocess.Popen([sys.executable, "bin/demo_tools.py", port], cwd=BASE_DIR)
    try:
        with scheduling(own_database, log=tmp_path / "scheduler.log", PIPEDAI_DATA_DIR=str(data)):
            check(
                list(blocks.values()),
                [FIRST_TRIGGER.get(name, []) for name in blocks],
                HOME=str(tmp_path),
                PATH=f"{programs}{os.pathsep}{os.environ['PATH']}",
                SERVER=server.url,
                MCP_URL=f"http://127.0.0.1:{port}/mcp",
                CLAUDE_CODE_OAUTH_TOKEN="a-token",
            )
            # The account's, a test, the failure, the recovery.
            until(lambda: len(list((data / "mail").glob("*.eml"))) == 4)
    finally:
        serving.kill()
        serving.wait()
    mails = [mail.read_text() for mail in (data / "mail").glob("*.eml")]
    assert sum("Morning report" in mail for mail in mails) == 2


def check(blocks: list[str], promised: list[list[str]], **environment: str) -> None:
    """Runs the blocks one after the other in one shell. Fails if a command fails, or if what a block says lacks one of
    the patterns that are promised of it.
    """
    if shutil.which("curl") is None:
        pytest.skip("no curl here")
    # A newcomer's shell continues after a failure, but here the first failure ends it.
    script = "".join(f"printf '\\n--- {number}\\n'\n{block}" for number, block in enumerate(blocks))
    process = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=BASE_DIR,
        env={**os.environ, "BASH_ENV": "", **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said = process.communicate(timeout=380)[0]
    finally:
        kill_group(process.pid)
        process.wait()
    assert process.returncode == 0, said
    assert not re.search(r'"error": ?"', said), said
    parts = re.split(r"^--- \d+\n", said, flags=re.MULTILINE)[1:]
    for part, patterns in zip(parts, promised, strict=True):
        for pattern in patterns:
            assert re.search(pattern, part, re.MULTILINE), (pattern, part)


def test_a_wait_of_the_tour_ends_and_shows_the_end_of_the_workers_log(tmp_path):
    (found,) = re.findall(
        r"^within_a_minute\(\) \{\n.*?^\}\n", tour()[""], re.DOTALL | re.MULTILINE
    )
    (tmp_path / "worker.log").write_text("early\n" * 30 + "It can't register.\n")
    script = f"sleep() {{ slept=$((${{slept:-0}} + 1)); }}\n{found}\nwithin_a_minute false || echo $slept"
    said = subprocess.run(
        ["bash", "-c", script],
        env={"PATH": os.environ["PATH"], "TOUR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.splitlines()
    assert said[0].startswith("After a minute this still fails: false.")
    assert said[-2:] == ["It can't register.", "120"]
    assert len(said) == 22


def kill_group(pid: int) -> None:
    """Kills the shell and a worker that it may have left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def replaced(text: str, old: str, new: str) -> str:
    """Replaces `old`, which the text must contain."""
    assert old in text
    return text.replace(old, new)
