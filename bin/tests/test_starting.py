"""Ctrl-C just after bin/run was called ends it without a traceback."""

import signal
import subprocess
import sys

from bin.tests.scripts import ROOT

# Interrupts the process when it begins to load `bin.stack`.
INTERRUPTED = """
import os, runpy, signal, sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "bin.stack":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("bin.starting", run_name="__main__")
"""


def test_ctrl_c_while_modules_load_says_nothing():
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], cwd=ROOT, capture_output=True, timeout=60
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGINT, b"", b"")
