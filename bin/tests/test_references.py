"""No file refers to a text that is not in the repository, because its reader could not look there."""

import subprocess

from pipedai.env import BASE_DIR


def test_no_file_refers_to_a_specification_that_is_not_here():
    # The word is written in two parts, so that this file does not refer to it either.
    found = subprocess.run(
        ["git", "grep", "-n", "SPEC" + " §"],
        cwd=BASE_DIR, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.stderr == ""
    assert found.stdout == ""
