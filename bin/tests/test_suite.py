"""bin/test runs all checks, even if one fails, and does not touch the developer's settings and database."""

import os
import re
import signal
import time
from unittest.mock import MagicMock

import pytest

from bin import changed, suite
from bin.tests.scripts import alive, eventually, read_until, started

# The check's output. It has two spaces, so that the announcement of the command does not contain it.
UNDER_WAY = "echo it  is; exec sleep 100"
SCRIPT = """
import os, sys
from bin.suite import Suite
class Small(Suite):
    def run(self, commands):
        for command in commands:
            self._check(command, ["sh", "-c", command], {})
        return self._verdict()
sys.exit(Small(os.environ).run(sys.argv[1:]))
"""


def small(tmp_path, *commands):
    """Makes a suite whose checks are these shell commands."""
    return started("-c", SCRIPT, *commands, mark=str(tmp_path))


def test_all_checks_run_and_those_that_failed_are_named_last(tmp_path):
    with small(tmp_path, "echo one; false", "echo two", "exit 3") as process:
        said = process.communicate(timeout=60)[0]
    assert process.returncode == 1
    assert said.splitlines()[-1] == "Failed: echo one; false, exit 3"
    assert "\ntwo\n" in said


def test_nothing_is_said_after_the_last_check_when_all_passed(tmp_path):
    with small(tmp_path, "true", "echo summary") as process:
        said = process.communicate(timeout=60)[0]
    assert process.returncode == 0
    assert said.splitlines()[-1] == "summary"


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_the_check_and_skips_the_rest(tmp_path, signum):
    with small(tmp_path, UNDER_WAY, "echo never") as process:
        read_until(process, "it is")
        os.killpg(process.pid, signum)
        said = process.communicate(timeout=60)[0]
    assert process.returncode == 128 + signum
    assert "never" not in said
    assert eventually(lambda: alive(str(tmp_path)) == [])


def test_killing_it_leaves_no_check_behind(tmp_path):
    with small(tmp_path, UNDER_WAY) as process:
        read_until(process, "it is")
        process.kill()
    assert eventually(lambda: alive(str(tmp_path)) == [])


def test_the_developers_settings_do_not_reach_the_checks(monkeypatch, tmp_path):
    monkeypatch.setenv("DATABASE_URL", "postgres://precious")
    monkeypatch.setenv("PORT", "8123")
    monkeypatch.delenv("TEST_DATABASE_URL", raising=False)

    environment = suite.environment_of(tmp_path)

    assert environment["DATABASE_URL"] == ""
    assert environment["PORT"] == ""  # it is empty, so that a .env file does not set it
    assert environment["PIPEDAI_DATA_DIR"] == str(tmp_path)


def test_a_database_for_tests_is_used_when_one_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("TEST_DATABASE_URL", "postgres://for-tests")
    assert suite.environment_of(tmp_path)["DATABASE_URL"] == "postgres://for-tests"


def test_help_says_how_without_running_anything(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["bin/test", "-k", "x", "--help"])
    assert suite.main() == 0
    assert re.match("usage: bin/test", capsys.readouterr().out)


def steps(monkeypatch, *arguments):
    """The names of the steps that `bin/test ARGUMENTS` would take, and the arguments that pytest gets."""
    taken = {}
    monkeypatch.setattr(
        suite.Suite, "_run", lambda _, name, command, *rest: taken.update({name: command})
    )
    monkeypatch.setattr(suite, "Afterwards", MagicMock())
    # Nothing cleans up after these steps, so they may start no server and make no directory.
    monkeypatch.setenv("TEST_DATABASE_URL", "postgres://for-tests")
    monkeypatch.setattr(suite, "types_cache", lambda: suite._ROOT / "none")
    monkeypatch.setattr(suite, "new_data_dir", lambda: suite._ROOT / "none")
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("sys.argv", ["bin/test", *arguments])
    assert suite.main() == 0
    return [*taken], taken.get("Tests")


def test_the_static_checks_run_beside_the_tests(monkeypatch):
    names, passed_on = steps(monkeypatch, "triggers", "-k", "claim")
    read = {"Lint", "Format", "Types", "Imports", "Migrations", "Safe migrations", "Schema"}
    assert {*read, "Production settings"} < set(names)
    assert passed_on[-3:] == ["triggers", "-k", "claim"]


def test_without_the_checks_there_are_only_the_tests(monkeypatch):
    names, passed_on = steps(monkeypatch, "triggers", "--no-checks")
    assert names == ["Tests"]
    assert passed_on[-1:] == ["triggers"]
    assert "--no-checks" not in passed_on


@pytest.mark.parametrize(
    ("arguments", "left_out"),
    [
        ([], True),
        (["-k", "claim"], True),
        (["bin"], False),
        (["bin/tests/test_suite.py::test_x"], False),
        (["--all"], False),
    ],
)
def test_the_long_tests_run_when_all_are_wanted_or_files_are_named(
    monkeypatch, arguments, left_out
):
    names, passed_on = steps(monkeypatch, "--no-checks", *arguments)
    assert ("-m" in passed_on) is left_out
    assert ("Programs" in names) is ("--all" in arguments)


@pytest.mark.parametrize("ci", ["true", ""])
def test_the_real_cli_is_installed_in_ci_alone(monkeypatch, ci):
    monkeypatch.setenv("CI", ci)
    names, _ = steps(monkeypatch, "--no-checks", "--all")
    assert names == ["Programs", "Advisories", *(["Claude"] if ci else []), "Tests"]


def test_a_kept_cluster_is_of_these_migrations_and_goes_when_no_run_has_used_it_for_a_day(
    monkeypatch, tmp_path
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    clusters = suite.kept_files() / "clusters"
    used, unused = clusters / suite._name_of_cluster(), clusters / "unused"
    for each in (used, unused):
        each.mkdir(parents=True)
        os.utime(each, (time.time() - 2 * suite._UNUSED_SECONDS,) * 2)
    assert suite.migrated_cluster({}) == used
    assert [each for each in clusters.iterdir() if each.is_dir()] == [used]


def test_a_kept_cluster_stays_for_a_run_whose_clock_is_ahead(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    used = suite.kept_files() / "clusters" / suite._name_of_cluster()
    used.mkdir(parents=True)
    later = time.time() + 2 * suite._UNUSED_SECONDS
    monkeypatch.setattr(time, "time", lambda: later)
    assert suite.migrated_cluster({}).exists()


def test_files_are_kept_in_the_checkout_if_the_user_has_no_place_for_them(monkeypatch, tmp_path):
    (tmp_path / "no directory").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "no directory"))
    assert suite.kept_files() == suite._ROOT / ".cache"


def test_another_migration_or_what_it_imports_gives_a_kept_cluster_another_name(
    monkeypatch, tmp_path
):
    monkeypatch.setattr(suite, "_ROOT", tmp_path)
    names = set()
    for path, text in {
        "requirements.txt": "",
        "pipedai/embedded/cluster.py": "",
        "accounts/migrations/0001_initial.py": "from accounts.columns import Colour",
        "accounts/columns.py": "class Colour: ...",
        "accounts/other.py": "",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
        if (tmp_path / "pipedai/embedded/cluster.py").exists():
            names.add(suite._name_of_cluster())
    assert len(names) == 3


def test_a_fresh_checkout_uses_what_mypy_found_in_one_with_the_same_modules(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    caches = []
    for checkout, modules in {"a": ["x"], "b": ["x"], "c": ["x", "y"]}.items():
        for name in modules:
            (tmp_path / checkout / "app").mkdir(parents=True, exist_ok=True)
            (tmp_path / checkout / "app" / f"{name}.py").write_text(checkout)
        monkeypatch.setattr(suite, "_ROOT", tmp_path / checkout)
        caches.append(suite.types_cache())
    assert caches[0] == caches[1] != caches[2]


def test_of_what_has_changed_the_concerned_tests_run_but_no_long_ones(monkeypatch):
    monkeypatch.setattr(changed, "tests", lambda *_: ["bin/tests/test_suite.py"])
    names, passed_on = steps(monkeypatch, "--no-checks", "--changed", "-x")
    assert names == ["Tests"]
    assert passed_on[-4:] == ["-m", "not long", "-x", "bin/tests/test_suite.py"]


def test_where_no_test_is_concerned_only_the_checks_run(monkeypatch):
    monkeypatch.setattr(changed, "tests", lambda *_: [])
    names, passed_on = steps(monkeypatch, "--changed")
    assert "Lint" in names
    assert passed_on is None
