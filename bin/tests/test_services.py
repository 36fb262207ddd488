"""Command lines that run side by side all end when one ends, on a signal, and when their manager is killed."""

import fcntl
import os
import re
import signal
import subprocess
import sys
import termios

import pytest

from bin.services import procfile
from bin.tests.scripts import ROOT, alive, eventually, read_until, started

SCRIPT = """
import os, sys
from bin.services import Services
services = Services(dict(os.environ))
say, *commands = sys.argv[1:]
for name, command in enumerate(commands):
    services.add(f"s{name}", command)
def tell():
    print("all forked", flush=True)
    services.say(eval(say))
sys.exit(services.run(when_started=tell))
"""

pytestmark = pytest.mark.long


def services(tmp_path, *commands, say="'all started'"):
    return started("-c", SCRIPT, say, *commands, mark=str(tmp_path))


def none_left(tmp_path):
    return eventually(lambda: alive(str(tmp_path)) == [])


@pytest.mark.parametrize("code", [0, 3])
def test_the_first_to_end_ends_the_others_and_tells_the_exit_code(tmp_path, code):
    with services(tmp_path, "exec sleep 100", f"sleep 0.2; exit {code}") as process:
        assert process.wait(timeout=60) == code
        assert none_left(tmp_path)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("words", ["all forked", "all started"])
def test_a_signal_ends_them_all_also_when_it_comes_early(tmp_path, signum, code, words):
    with services(tmp_path, *["exec sleep 100"] * 3) as process:
        read_until(process, words)
        process.send_signal(signum)
        assert process.wait(timeout=60) == code
        assert none_left(tmp_path)


def test_killing_the_manager_ends_them_too(tmp_path):
    for words in ("all forked", "s0 started", "all started"):
        with services(tmp_path, *["exec sleep 100"] * 3) as process:
            read_until(process, words)
            process.kill()
            assert none_left(tmp_path)


def test_a_signal_in_the_midst_of_a_print_ends_them_all(tmp_path):
    with services(tmp_path, "exec sleep 100", say="'x' * 1_000_000") as process:
        assert eventually(lambda: unread(process.stdout) > 50_000)  # the print waits for a reader
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[0]
        assert process.returncode == 130
        assert said.count("x") >= 1_000_000
        assert none_left(tmp_path)


def unread(pipe):
    """Returns how many bytes in the pipe nobody has read."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def test_they_end_when_nobody_reads_what_they_say(tmp_path):
    with services(tmp_path, "while sleep 0.1; do echo hello; done", "exec sleep 100") as process:
        read_until(process, "hello")
        process.stdout.close()
        assert process.wait(timeout=60) == 143
        assert none_left(tmp_path)


def test_our_own_lines_stand_between_theirs_without_a_name(tmp_path):
    with services(tmp_path, "echo hello; sleep 0.2") as process:
        lines = process.communicate(timeout=60)[0].splitlines()
    assert "all started" in lines
    assert any(line.endswith("| hello") for line in lines)


QUIET = """
import os, sys
from pathlib import Path
from bin.services import ServiceLogs
from bin.services import Services
services = Services(dict(os.environ), logs=ServiceLogs(Path(sys.argv[1])), quiet=True)
services.add("web", sys.argv[2])
services.add("worker", "exec sleep 100")
sys.exit(services.run(when_started=lambda: services.say("all started")))
"""
SPOKEN = """
echo "15:30:00 info    hello"; echo "15:30:00 warning take care"; echo oops >&2; sleep 0.2; exit 3
"""


def test_quiet_services_show_warnings_and_an_end_that_nobody_asked_for(tmp_path):
    with started("-c", QUIET, str(tmp_path / "log"), SPOKEN, mark=str(tmp_path)) as process:
        said = process.communicate(timeout=60)[0]
        assert process.returncode == 3
    lines = [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in said.splitlines()]
    assert sorted(lines) == [
        "all started",
        "system | web stopped (rc=3)",
        "web    | 15:30:00 warning take care",
        "web    | oops",
    ]
    kept = (tmp_path / "log" / "web.log").read_text().splitlines()
    assert sorted(kept) == ["15:30:00 info    hello", "15:30:00 warning take care", "oops"]


def test_quiet_services_say_only_that_they_are_stopping_when_they_are_told_to(tmp_path):
    with started("-c", QUIET, str(tmp_path / "log"), "exec sleep 9", mark=str(tmp_path)) as process:
        said = read_until(process, "all started")
        process.send_signal(signal.SIGINT)
        said += process.communicate(timeout=60)[0]
        assert process.returncode == 130
    assert said == "all started\nStopping the services…\n"


def test_the_procfile_names_what_a_deployment_needs_and_execs_its_programs():
    processes = procfile(ROOT / "Procfile")
    assert list(processes) == ["release", "web", "scheduler"]
    for command in processes.values():
        assert command.startswith("PIPEDAI_ENV=${PIPEDAI_ENV:-production} exec ")


@pytest.mark.parametrize(
    ("given", "expected"), [({}, "production"), ({"PIPEDAI_ENV": "development"}, "development")]
)
def test_the_procfile_says_production_unless_told_otherwise(given, expected):
    for line in procfile(ROOT / "Procfile").values():
        assignment = line.partition(" exec ")[0]
        found = subprocess.run(
            ["sh", "-c", f"{assignment} exec printenv PIPEDAI_ENV"],
            env={"PATH": os.environ["PATH"], **given},
            capture_output=True,
            text=True,
        )
        assert found.stdout.strip() == expected
