"""Which lines of the services are shown, and what their log files keep."""

import json
import stat

import pytest
import structlog

from bin.services import ServiceLogs, is_alarming, level_of
from testing.world.cases import cases

REQUEST = "2026-11-24T15:30:00.123456Z [info     ] request    [pipedai.access] status=200"
WARNING = "2026-11-24T15:30:00.123456Z [warning  ] late       [pipedai.loop] seconds=9"
ERROR = "2026-11-24T15:30:00.123456Z [error    ] crashed    [pipedai.loop]"


@pytest.fixture
def logs(tmp_path):
    made = ServiceLogs(tmp_path / "log")
    made.begin("web")
    return made


@pytest.mark.parametrize(
    ("line", "level"),
    [
        (REQUEST, "info"),
        (WARNING, "warning"),
        ("15:30:00 info    run 1 claimed", "info"),
        ("15:30:00 error   no answer", "error"),
        ('{"event": "request", "level": "info", "time": "now"}', "info"),
        ('{"event": "crash", "level": "CRITICAL"}', "critical"),
        ('{"event": "no level"}', None),
        ("{no json", None),
        ("Traceback (most recent call last):", None),
        ("    [error    ] a message of somebody else", None),
        ("", None),
    ],
)
def test_the_level_of_a_line(line, level):
    assert level_of(line) == level
    assert is_alarming(line) is (level in {"warning", "error", "critical"})


@cases("level", ["debug", "info", "warning", "error", "critical"])
def test_the_levels_are_those_of_the_lines_that_structlog_renders(level):
    event = {"event": "said", "level": level, "time": "2026-11-24T15:30:00.123456Z"}
    render = structlog.dev.ConsoleRenderer(colors=False, timestamp_key="time")
    assert level_of(str(render(None, "", dict(event)))) == level
    assert level_of(json.dumps(event)) == level


def test_warnings_errors_and_what_is_no_log_line_are_shown(logs):
    lines = [
        REQUEST,
        WARNING,
        REQUEST,
        "Traceback (most recent call last):",
        "  File x",
        "KeyError",
    ]
    shown = [line for line in lines if logs.keep("web", line)]
    assert shown == [WARNING, "Traceback (most recent call last):", "  File x", "KeyError"]
    assert logs.path_of("web").read_text().splitlines() == lines


def test_an_indented_line_goes_with_the_line_before_it_of_the_same_service(logs):
    logs.begin("worker")
    assert logs.keep("web", ERROR)
    assert not logs.keep("worker", "15:30:00 info    connected")
    assert logs.keep("web", "    Traceback (most recent call last):")
    assert not logs.keep("worker", "    and more")


def test_the_files_are_private_and_those_of_the_start_before_are_kept(logs, tmp_path):
    logs.keep("web", REQUEST)
    again = ServiceLogs(tmp_path / "log")
    again.begin("web")
    again.keep("web", WARNING)
    assert again.path_of("web").read_text() == f"{WARNING}\n"
    assert (tmp_path / "log" / "web.log.1").read_text() == f"{REQUEST}\n"
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "log").iterdir()}
    assert modes == {0o600}
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o700
