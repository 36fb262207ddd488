"""bin/claude.py installs each program once, whole, and in the version that is pinned."""

import subprocess
import sys
from pathlib import Path

import pytest

from bin import claude, packages

# It does as npm does: it makes the program and a lock file with the hash of what it has got.
_NPM = """#!/bin/sh
echo "$*" >>"$(dirname "$0")/asked"
for option; do case $option in --prefix=*) folder=${option#--prefix=};; @*) package=${option%@*};; esac; done
mkdir -p "$folder/node_modules/$package"
printf '#!/bin/sh\\necho ok' >"$folder/node_modules/$package/claude"
chmod +x "$folder/node_modules/$package/claude"
echo '"integrity": "sha512-'"$HASH"'"' >"$folder/package-lock.json"
exit "${NPM_FAILS:-0}"
"""


class Npm:
    """A stand-in for npm that notes how it was called."""

    def __init__(self, directory: Path) -> None:
        self._asked = directory / "asked"
        program = directory / "npm"
        program.write_text(_NPM)
        program.chmod(0o755)

    def asked(self) -> list[str]:
        """Return the packages that it was asked for."""
        if not self._asked.exists():
            return []
        return [line.split()[-1] for line in self._asked.read_text().splitlines()]


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """Makes npm a stand-in, the cache a new folder, and the one version a made-up one."""
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("CLAUDE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HASH", "right")
    monkeypatch.setattr(packages, "provide", lambda _wanted: [])
    monkeypatch.setattr(claude, "VERSIONS", ("1.2.3",))
    monkeypatch.setattr(claude, "_PLATFORMS", ("linux-x64",))
    monkeypatch.setattr(claude, "_HASHES", {"1.2.3": ("right",)})
    monkeypatch.setattr(claude, "_platform", lambda: "linux-x64")
    return Npm(programs)


def test_it_installs_the_program_says_whose_it_is_and_then_is_silent(npm, capsys):
    assert claude.main() == 0

    assert "Anthropic" in capsys.readouterr().err
    assert npm.asked() == ["@anthropic-ai/claude-code-linux-x64@1.2.3"]
    program = claude.cli("1.2.3")
    assert program is not None
    assert subprocess.run([program], capture_output=True, check=True).stdout == b"ok\n"

    assert claude.main() == 0
    assert capsys.readouterr().err == ""
    assert len(npm.asked()) == 1


def test_what_a_killed_installation_left_is_no_program_and_is_made_anew(npm):
    assert claude.main() == 0
    (claude._cli_folder("1.2.3") / ".finished").unlink()

    assert claude.cli("1.2.3") is None
    assert claude.main() == 0
    assert claude.cli("1.2.3") is not None
    assert len(npm.asked()) == 2


def test_another_content_than_the_expected_one_is_refused(npm, monkeypatch, capsys):
    monkeypatch.setenv("HASH", "wrong")
    assert claude.main() == 1
    assert "is not the content that the tests expect" in capsys.readouterr().err
    assert claude.cli("1.2.3") is None


@pytest.mark.usefixtures("npm")
def test_an_npm_that_fails_is_one_sentence(monkeypatch, capsys):
    monkeypatch.setenv("NPM_FAILS", "7")
    assert claude.main() == 1
    assert "npm failed with code 7" in capsys.readouterr().err
    assert claude.cli("1.2.3") is None


@pytest.mark.usefixtures("npm")
def test_without_npm_it_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setattr(packages, "provide", lambda wanted: [*wanted])
    assert claude.main() == 1
    assert "apt-get install npm" in capsys.readouterr().err


@pytest.mark.usefixtures("npm")
def test_a_platform_that_the_tests_do_not_know_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(claude, "_platform", lambda: "plan9-vax")
    assert claude.main() == 1
    assert "plan9-vax" in capsys.readouterr().err


def test_the_cache_is_in_the_checkout_unless_another_folder_is_named(monkeypatch):
    monkeypatch.delenv("CLAUDE_CACHE", raising=False)
    assert claude.cache() == Path(claude.__file__).resolve().parents[1] / ".cache" / "claude"
    monkeypatch.setenv("CLAUDE_CACHE", "/var/cache/claude")
    assert claude.cache() == Path("/var/cache/claude")


def test_the_versions_are_pinned_for_every_platform():
    assert set(claude._HASHES) == set(claude.VERSIONS)
    assert {len(hashes) for hashes in claude._HASHES.values()} == {len(claude._PLATFORMS)}


def test_it_runs_as_a_program(monkeypatch, tmp_path):
    monkeypatch.setenv("CLAUDE_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    done = subprocess.run(
        [sys.executable, "-m", "bin.claude"],
        cwd=Path(claude.__file__).resolve().parents[1],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "npm" in done.stderr
