"""bin/packages.py installs nothing for a normal user, and fails in CI if a package is missing."""

import pytest

from bin import packages


@pytest.fixture
def without(monkeypatch):
    """Pretends that one package is missing and that root (or not) calls. Returns a list of what would be installed."""
    installed: list[str] = []

    def machine(*, root: bool, ci: bool) -> list[str]:
        monkeypatch.setattr(packages, "missing", lambda _wanted: ["nginx"])
        monkeypatch.setattr(packages, "install", installed.extend)
        monkeypatch.setattr("os.geteuid", lambda: 0 if root else 1000)
        monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
        monkeypatch.setenv("CI", "true" if ci else "")
        return installed

    return machine


def test_what_is_not_installed_is_missing():
    assert packages.missing(["no-such-package-anywhere"]) == ["no-such-package-anywhere"]


def test_a_program_from_elsewhere_will_do(monkeypatch):
    monkeypatch.setattr(packages, "_PROGRAMS", {"no-such-package-anywhere": "sh"})
    assert packages.missing(["no-such-package-anywhere"]) == []


def test_a_normal_user_is_told_and_goes_on(without, capsys):
    installed = without(root=False, ci=False)
    assert packages.main() == 0
    assert installed == []
    assert capsys.readouterr().out == "Without nginx, the tests that need them cannot run.\n"


def test_root_gets_it_installed(without):
    installed = without(root=True, ci=False)
    assert packages.main() == 0
    assert installed == ["nginx"]


def test_ci_fails_where_it_cannot_be_had(without):
    without(root=True, ci=True)
    assert packages.main() == 1


def test_while_packages_are_installed_no_service_starts_and_nothing_stays(tmp_path):
    ours, theirs = tmp_path / "new" / "policy", tmp_path / "kept"
    theirs.write_text("theirs")
    with packages._files({ours: "ours", theirs: "ours"}):
        assert ours.read_text() == "ours"
    assert not ours.exists()
    assert theirs.read_text() == "theirs"
