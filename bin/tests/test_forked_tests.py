"""`-n`: the tests of several processes are reported as those of one, also if a process ends in the middle of a test."""

import os
import subprocess
import sys
from pathlib import Path

from pipedai.env import BASE_DIR

_TESTS = """
import os
import pytest

@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    kept = tmp_path_factory.getbasetemp().parent / f"used-{os.getpid()}"
    kept.touch()
    yield
    kept.rename(kept.with_name(f"left-{os.getpid()}"))

@pytest.mark.parametrize("number", range(20))
def test_passes(shared, number):
    pass

def test_fails(shared):
    print("what it printed")
    assert 1 == 2

def test_tells_of_each(subtests):
    with subtests.test("the third"):
        raise ValueError

def test_ends_its_process():
    os._exit(0)
"""


def test_tests_of_all_processes_are_reported(tmp_path: Path) -> None:
    (tmp_path / "test_several.py").write_text(_TESTS)
    said = _pytest(tmp_path, "-n", "3", "--basetemp=base")
    for words in (
        "what it printed",
        "FAILED test_several.py::test_fails - assert 1 == 2",
        "SUBFAILED[the third] test_several.py::test_tells_of_each - ValueError",
        "The process of this test ended without a word.",
        "FAILED test_several.py::test_ends_its_process",
        "21 passed",
    ):
        assert words in said, said
    # Each process that lived to its end has torn down what its tests shared.
    used = sorted(path.name[:4] for path in (tmp_path / "base").glob("*-*"))
    assert used in (["left", "left"], ["left", "left", "used"]), used


def test_no_test_begins_after_the_first_failure_if_one_is_enough(tmp_path: Path) -> None:
    (tmp_path / "test_several.py").write_text(
        "import pytest\n@pytest.mark.parametrize('number', range(10))\ndef test(number): assert number\n"
    )
    said = _pytest(tmp_path, "-n", "1", "-x", "-v")
    assert "1 failed" in said, said
    assert "test_several.py::test[2]" not in said, said


def _pytest(directory: Path, *arguments: str) -> str:
    ended = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-p", "testing.processes.forked_tests",
            *("-p", "no:django", "-p", "no:xdist", "-p", "no:randomly", "-p", "no:cacheprovider"),
            *("-p", "no:schemathesis", "-p", "no:faker", "-p", "no:hypothesispytest", *arguments),
        ],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(BASE_DIR)},
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert ended.returncode == 1, ended.stderr
    return ended.stdout
