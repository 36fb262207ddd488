"""bin/test --changed runs the tests that a change concerns."""

import subprocess

from bin import changed
from bin.tests.scripts import ROOT


def concerned(*files):
    return changed.tests(ROOT, [*files])


def test_it_finds_the_tests_beside_a_change_and_those_that_import_it():
    found = concerned("triggers/budgets/services.py")
    assert "triggers/budgets/tests/test_reserving.py" in found
    importers = [each for each in found if not each.startswith("triggers/budgets/")]
    assert importers
    assert all(each.rpartition("/")[2].startswith("test_") for each in found)
    # Nearly all tests import something of `testing`, which imports the budgets: those are not concerned.
    assert "accounts/tests/test_models.py" not in found


def test_what_the_tests_share_concerns_all_that_use_it():
    assert len(concerned("testing/world/cast.py")) > 100
    assert "agent/tests/test_redact.py" in concerned("agent/tests/conftest.py")


def test_the_worker_and_the_command_line_have_tests_of_their_own():
    assert "agent/tests/test_redact.py" in concerned("agent/pipedai_worker/redact.py")
    assert "cli/tests/cli_tests/test_files.py" in concerned("cli/pipedai_cli/files.py")


def test_a_document_concerns_the_tests_that_name_it_and_a_test_itself():
    assert "bin/tests/test_changelog_check.py" in concerned("CHANGELOG.md")
    assert concerned("bin/tests/test_changed.py") == ["bin/tests/test_changed.py"]
    assert concerned("no such " + "document") == []


def test_changes_are_those_since_the_branch_left_main_also_uncommitted_ones(tmp_path):
    def git(*arguments):
        named = ("-c", "user.name=Ada", "-c", "user.email=ada@example.com")
        subprocess.run(["git", *named, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init", "-b", "main")
    for name in ("old", "edited"):
        (tmp_path / name).write_text(name)
    git("add", ".")
    git("commit", "-m", "Begin")
    git("checkout", "-b", "mine")
    (tmp_path / "committed").write_text("new")
    git("add", ".")
    git("commit", "-m", "Go on")
    (tmp_path / "edited").write_text("other")
    (tmp_path / "new").write_text("new")
    assert sorted(changed.files(tmp_path)) == ["committed", "edited", "new"]
