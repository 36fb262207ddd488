"""bin/source_check.py: the contract does not change without a line in CHANGELOG.md."""

import subprocess

import pytest

from bin import source_check
from bin.source_check import changelog_problems, has_new_line, names_changed, sections_wrong
from testing.world.cases import cases


def reference(*fields, prose="A trigger."):
    told = "".join(f"| `{field}` | text |\n" for field in fields)
    return f"### `GET /triggers`\n\nIt takes `?limit=`. {prose}\n\n{told}"


@pytest.fixture
def repository(tmp_path):
    """A repository with a reference and a changelog, both committed."""
    for command in ("init", "config user.name Ada", "config user.email ada@example.com"):
        subprocess.run(["git", *command.split()], cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "CHANGELOG.md").write_text("## [Unreleased]\n")
    write(tmp_path, reference("name"))
    commit(tmp_path)
    return tmp_path


def write(repository, described):
    (repository / "API.md").write_text(described)


def commit(repository):
    for command in ("add .", "commit -m Change"):
        subprocess.run(["git", *command.split()], cwd=repository, check=True, capture_output=True)


@pytest.mark.parametrize("committed", [True, False])
def test_a_new_field_needs_a_line(repository, committed):
    write(repository, reference("name", "tags"))
    if committed:
        commit(repository)
    assert names_changed(repository) == ["+ tags"]


@pytest.mark.parametrize("committed", [True, False])
def test_with_a_line_it_is_fine(repository, committed):
    write(repository, reference("name", "tags"))
    commit(repository)
    (repository / "CHANGELOG.md").write_text("## [Unreleased]\n\n- Triggers have tags.\n")
    if committed:
        commit(repository)
    assert (names_changed(repository) == []) is committed
    assert has_new_line(repository) is not committed


@pytest.mark.parametrize("told", [True, False])
def test_another_edit_of_the_changelog_that_is_not_committed_hides_nothing(
    repository, capsys, monkeypatch, told
):
    monkeypatch.setattr(source_check, "sections_wrong", lambda *_: None)
    write(repository, reference("name", "tags"))
    added = "- Triggers have names.\n" if told else ""
    (repository / "CHANGELOG.md").write_text(f"# All changes\n\n## [Unreleased]\n{added}")
    wrong = [*changelog_problems(repository)]
    assert ("+ tags" in wrong, "+ tags" in capsys.readouterr().out) == (not told, told)


def test_what_went_is_named_too(repository):
    write(repository, "A trigger.\n")
    assert names_changed(repository) == ["- GET /triggers", "- limit", "- name"]


def test_prose_needs_no_line(repository):
    write(repository, reference("name", prose="What to run."))
    commit(repository)
    assert names_changed(repository) == []


def test_without_a_history_there_is_nothing_to_compare(tmp_path):
    assert names_changed(tmp_path) == []


def test_what_comes_after_a_release_needs_a_line_above_it(repository):
    changelog = repository / "CHANGELOG.md"
    changelog.write_text("## [Unreleased]\n\n## [1.0.0] - 2026-11-26\n\n- Triggers have names.\n")
    commit(repository)
    write(repository, reference("name", "tags"))
    assert names_changed(repository) == ["+ tags"]
    assert not has_new_line(repository)
    changelog.write_text(changelog.read_text().replace("d]\n", "d]\n\n- Triggers have tags.\n"))
    assert has_new_line(repository)


@cases(
    ("text", "sentence"),
    [
        ("## [Unreleased]\n\n## [1.2.0] - 2026-11-26\n", None),
        ("## [1.2.0] - 2026-11-26\n", "first section"),
        ("", "first section"),
        ("## [Unreleased]\n", "must have the section"),
        ("## [Unreleased]\n\n## [1.1.0] - 2026-11-26\n", "must have the section"),
        ("## [Unreleased]\n\n## [1.2.0]\n", "must have the section"),
    ],
)
def test_the_sections_are_for_what_comes_and_for_this_version(text, sentence):
    wrong = sections_wrong(text, "1.2.0")
    assert wrong is None if sentence is None else sentence in (wrong or "")


@cases(("newest", "fits"), [("1.1.9", True), ("1.2.0", False), ("1.10.0", False)])
def test_what_is_in_development_comes_after_the_newest_release(newest, fits):
    wrong = sections_wrong(f"## [Unreleased]\n\n## [{newest}] - 2026-11-26\n", "1.2.0.dev0")
    assert (wrong is None) is fits
