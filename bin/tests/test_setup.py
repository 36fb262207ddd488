"""Runs bin/setup in small checkouts whose lock files name no package."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pip
import pytest

SETUP = Path(__file__).resolve().parents[1] / "setup"
PYTHON = Path(sys.executable).resolve()
SYSTEM_PYTHONS = [f"/usr/bin/python3.{minor}" for minor in (11, 12, 13, 14)]
TOOLS = ("bash", "cat", "chmod", "cksum", "dirname", "env", "flock", "id", "mkdir", "rm", "touch")
# The Python on the PATH runs this, so that it makes environments quickly.
QUICK_VENV = (
    f'case "$*" in "-m venv "*) exec {PYTHON} {Path(__file__).with_name("quick_venv.py")}'
    f' "$3" {Path(pip.__file__).parent};; esac'
)
# A fake program on the PATH runs this to kill the bin/setup that called it.
KILL = "kill -9 -$PPID"

pytestmark = pytest.mark.long


class Checkout:
    """A directory with bin/setup, empty lock files, and a PATH with one Python and few tools."""

    def __init__(self, root: Path) -> None:
        self.path = root / "checkout"
        self.python = root / "path" / "python3"
        (self.path / "bin").mkdir(parents=True)
        shutil.copy(SETUP, self.path / "bin")
        for lock in ("requirements.txt", "requirements-dev.txt"):
            (self.path / lock).touch()
        self.prefer("0.0")
        self.python.parent.mkdir()
        for tool in TOOLS:
            (self.python.parent / tool).symlink_to(str(shutil.which(tool)))
        self.install_python()

    @property
    def venv(self) -> Path:
        return self.path / ".venv"

    def install_python(self, *, pretend: str = QUICK_VENV) -> None:
        """Put a Python on the PATH: it runs the shell code `pretend`, and then this test's Python."""
        self.python.write_text(f'#!/bin/sh\n{pretend}\nexec {PYTHON} "$@"\n')
        self.python.chmod(0o755)

    def prefer(self, version: str) -> None:
        """Name the version of the system's own Python that bin/setup takes before those on the PATH, if it is there."""
        (self.path / ".python-version").write_text(f"{version}\n")

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start bin/setup."""
        return subprocess.Popen(
            ["bash", self.path / "bin" / "setup", *arguments],
            env={"PATH": str(self.python.parent)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def setup(self, *arguments: str) -> tuple[int, str]:
        """Run bin/setup, and return its exit code and output."""
        process = self.start(*arguments)
        said = process.communicate(timeout=300)[1]
        return process.returncode, said

    def works(self) -> bool:
        """Whether the virtual environment exists and works."""
        pip = subprocess.run([self.venv / "bin" / "pip", "--version"], capture_output=True)
        return pip.returncode == 0 and str(self.venv).encode() in pip.stdout


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)


def test_it_installs_what_changed_and_is_silent_when_nothing_did(checkout):
    checkout.install_python(pretend="")
    code, said = checkout.setup()
    assert (code, said.count("\n")) == (0, 2)
    assert "Making .venv" in said
    assert "--dev brings pytest, ruff" in said
    assert checkout.works()
    checkout.install_python()
    assert checkout.setup() == (0, "")

    code, said = checkout.setup("--dev")
    assert (code, said.count("\n"), "--dev" in said) == (0, 1, False)
    assert checkout.setup("--dev") == (0, "")
    assert checkout.setup() == (0, "")

    (checkout.path / "requirements.txt").write_text("# changed\n")
    code, said = checkout.setup()
    assert (code, said.count("\n")) == (0, 1)
    assert checkout.setup() == (0, "")

    checkout.path = checkout.path.rename(checkout.path.with_name("elsewhere"))
    code, said = checkout.setup()
    assert code == 0
    assert "does not work here" in said
    assert checkout.works()


def made_with(python):
    """Returns shell code that makes an environment whose Python is such shell code."""
    return (
        f"mkdir -p .venv/bin; printf '%s\\n' '#!/bin/sh' '{python}' >.venv/bin/python;"
        " chmod +x .venv/bin/python; exit"
    )


@pytest.mark.parametrize(
    ("venv", "code"),
    [
        (KILL, -signal.SIGKILL),
        (made_with(KILL), -signal.SIGKILL),
        (made_with("case $2 in compileall) trap exit INT; kill -INT -$PPID;; esac"), 130),
    ],
    ids=["killed before pip", "killed in pip", "interrupted in compileall"],
)
def test_a_set_up_that_was_cut_short_is_begun_again(checkout, venv, code):
    checkout.install_python(pretend=f'case "$*" in "-m venv"*) {venv};; esac')
    ended, said = checkout.setup()
    assert ended == code
    assert "could not" not in said
    checkout.install_python()

    code, said = checkout.setup()

    assert code == 0
    assert "half-made" in said
    assert checkout.works()


def test_a_virtual_environment_made_by_hand_is_filled_and_not_removed(checkout):
    subprocess.run([checkout.python, "-m", "venv", checkout.venv], check=True)
    (checkout.venv / "mine").touch()

    code, _ = checkout.setup()

    assert code == 0
    assert (checkout.venv / "mine").exists()


def test_several_at_once_make_one_environment(checkout):
    several = [checkout.start() for _ in range(3)]
    said = [process.communicate(timeout=300)[1] for process in several]

    assert [process.returncode for process in several] == [0, 0, 0]
    assert sum("Making" in words for words in said) == 1
    assert checkout.works()


def test_a_checkout_that_can_t_be_written_is_one_sentence_and_left_alone(checkout):
    (checkout.venv / "bin").mkdir(parents=True)
    with read_only(checkout.path):
        code, said = checkout.setup()
    assert code == 1
    assert said == (
        f"You can't write to {checkout.venv}: run this as its owner, or in a checkout of your own.\n"
    )
    assert (checkout.venv / "bin").exists()


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Lets nobody write below the folder for the time of the block. Root may write wherever the file system lets it."""
    if os.geteuid() != 0:
        pytest.skip("Only root can mount the checkout without the right to write.")
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def test_packages_that_pip_can_t_get_end_in_a_sentence_that_says_so(checkout):
    (checkout.path / "requirements.txt").write_text("pip @ file:///nowhere --hash=sha256:00\n")
    code, said = checkout.setup()
    assert code == 1
    assert "could not be installed" in said.splitlines()[-1]


def test_the_systems_own_python_of_the_deployed_version_is_preferred(checkout):
    system = next((each for each in map(Path, SYSTEM_PYTHONS) if can_make_environments(each)), None)
    if not system:
        pytest.skip("The system has no Python of its own that can make virtual environments.")
    checkout.prefer(system.name.removeprefix("python"))
    process = checkout.start()
    said = process.stderr.readline()
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()

    version = subprocess.check_output([system, "--version"], text=True).strip()
    assert said == f"Making .venv with {version}…\n"


def can_make_environments(python: Path) -> bool:
    return (
        python.exists() and not subprocess.run([python, "-c", "import ensurepip, venv"]).returncode
    )


def test_no_python_that_is_new_enough_is_one_sentence(checkout):
    checkout.install_python(pretend='case "$*" in *version_info*) exit 1;; esac')
    code, said = checkout.setup()
    assert code == 1
    assert said.startswith("PipedAI needs Python 3.11 or newer")
    assert said.count("\n") == 1
    assert not checkout.venv.exists()


def test_a_python_without_venv_names_the_package_to_install(checkout):
    checkout.install_python(pretend='case "$*" in *ensurepip*) exit 1;; esac')
    code, said = checkout.setup()
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert code == 1
    assert f"apt-get install python{version}-venv" in said
    assert said.count("\n") == 1
    assert not checkout.venv.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root installs packages")
def test_root_on_debian_gets_the_package_installed(checkout):
    broken = 'case "$*" in *ensurepip*) exit 1;; esac'
    checkout.install_python(pretend=f"{broken}\n{QUICK_VENV}")
    apt = checkout.python.with_name("apt-get")
    apt.write_text(
        '#!/bin/sh\necho "$@" >>"$(dirname "$0")/asked"\n'
        'case "$1" in update) exit 0;; esac\n'
        'grep -q update "$(dirname "$0")/asked" || exit 100\n'
        f"sed -i '/ensurepip/d' {checkout.python}\n"
    )
    apt.chmod(0o755)
    for tool in ("grep", "sed"):
        (apt.parent / tool).symlink_to(str(shutil.which(tool)))

    code, said = checkout.setup()

    assert code == 0
    assert "Installing the system package" in said
    assert checkout.works()
    asked = (apt.parent / "asked").read_text().splitlines()
    assert [line.split()[0] for line in asked] == ["install", "update", "install"]


def test_a_wrong_option_shows_how_to_call_it(checkout):
    assert checkout.setup("--prod") == (2, "usage: bin/setup [--dev] [--claude]\n")
