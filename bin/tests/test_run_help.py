"""`bin/run --help` answers on a fresh clone, where nothing is set up, and names every option."""

import re
import shutil
import subprocess

import pytest

from bin.stack import OPTIONS
from bin.tests.scripts import ROOT


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--no-demo", "--help"]])
def test_help_needs_no_set_up(tmp_path, arguments):
    (tmp_path / "bin").mkdir()
    shutil.copy(ROOT / "bin" / "run", tmp_path / "bin")
    said = subprocess.run(
        [tmp_path / "bin" / "run", *arguments],
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    )
    assert said.stderr == ""
    assert set(re.findall(r"^  (--[a-z-]+) ", said.stdout, re.MULTILINE)) == set(OPTIONS)
    assert all(f"[{option}]" in said.stdout for option in OPTIONS)
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]
