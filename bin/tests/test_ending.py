"""Nothing outlives a script but the command that cleans up after it."""

import signal

import pytest

from bin.tests.scripts import alive, eventually, read_until, started

SCRIPT = """
import signal, subprocess, sys, time
from bin.ending import Afterwards, die_with_parent
last = Afterwards("echo done >>{file}", {{"PATH": "/usr/bin:/bin"}})
subprocess.Popen(["sleep", "100"], preexec_fn=die_with_parent(signal.SIGTERM))
print("started", flush=True)
{rest}
"""


@pytest.fixture
def file(tmp_path):
    """The file to which the command of Afterwards writes."""
    return tmp_path / "file"


def script(file, rest):
    return started("-c", SCRIPT.format(file=file, rest=rest), mark=str(file))


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_what_comes_afterwards_comes_however_a_script_ends(file, signum):
    with script(file, "time.sleep(100)") as process:
        read_until(process, "started")
        assert not file.exists()

        process.send_signal(signum)

        assert eventually(file.exists)
    assert eventually(lambda: alive(str(file)) == [])
    assert file.read_text() == "done\n"


def test_a_script_can_wait_for_what_comes_afterwards_and_it_comes_once(file):
    with script(file, f"last.now(); print(open('{file}').read()); last.now()") as process:
        read_until(process, "done")
    assert eventually(lambda: alive(str(file)) == [])
    assert file.read_text() == "done\n"


def test_a_child_whose_parent_died_before_it_could_ask_does_not_live_on(file):
    orphan = "if os.fork() == 0: time.sleep(0.5); die(); time.sleep(100)"
    with script(file, f"import os; die = die_with_parent(signal.SIGTERM)\n{orphan}") as process:
        assert process.wait(timeout=60) == 0
    assert eventually(lambda: alive(str(file)) == [])
