"""No file refers to a text that is not in the repository, because its reader could not look there."""

import subprocess

from pipedai.env import BASE_DIR

# The rooms that say the reason itself, or name the page of docs/ or API.md that has it. A room that is not here yet
# still refers to the specification by its numbers.
_DONE = ("bin", "deploy", "docs", "pipedai", "testing", "*.md", "conftest.py", "manage.py")
_NOT_YET = (":!pipedai/admin",)


def test_no_file_refers_to_a_specification_that_is_not_here():
    # The words are written apart, so that this file does not refer to it either.
    pattern = "SPEC" + r"( ?§|\.md)"
    found = subprocess.run(
        ["git", "grep", "-nE", pattern, "--", *_DONE, *_NOT_YET],
        cwd=BASE_DIR, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.stderr == ""
    assert found.stdout == ""
