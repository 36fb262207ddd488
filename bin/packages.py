"""Installs the Debian packages that some tests run or load, if called as root on Debian or Ubuntu."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

PACKAGES = (
    "chromium", "haproxy", "iproute2", "libjson-c5", "nginx", "nodejs", "npm", "pgbouncer", "postgresql", "systemd",
)  # fmt: skip
# Node.js often does not come from Debian, and Debian's npm does not fit it then, so a program on the PATH is enough.
_PROGRAMS = {"nodejs": "node", "npm": "npm"}

_INSTALL = (
    "apt-get", "install", "-qq", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300",
)  # fmt: skip
# While packages are being installed, these files keep them from starting services and from creating a database.
_QUIET = {
    Path("/usr/sbin/policy-rc.d"): "#!/bin/sh\nexit 101\n",
    Path("/etc/postgresql-common/createcluster.d/pipedai.conf"): "create_main_cluster = false\n",
}


def main() -> int:
    lacking = provide(PACKAGES)
    if lacking:
        print(f"Without {', '.join(lacking)}, the tests that need them cannot run.", flush=True)
    return 1 if lacking and os.environ.get("CI") == "true" else 0


def provide(wanted: Sequence[str]) -> list[str]:
    """Install the missing packages, if that is possible here. Return the packages that are still missing."""
    lacking = missing(wanted)
    if lacking and os.geteuid() == 0 and shutil.which("apt-get"):
        print(f"Installing the system packages {', '.join(lacking)}, which tests need…", flush=True)
        install(lacking)
        lacking = missing(wanted)
    return lacking


def missing(packages: Sequence[str]) -> list[str]:
    """Return the packages that dpkg has not installed. Node and npm count as installed if they are on the PATH."""
    packages = [each for each in packages if not shutil.which(_PROGRAMS.get(each, ""))]
    if not packages or shutil.which("dpkg-query") is None:
        return packages
    listed = subprocess.run(
        ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n", *packages],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.splitlines()
    return [package for package in packages if f"{package} installed" not in listed]


def install(packages: Sequence[str]) -> None:
    with _uninterrupted(), _files(_QUIET):
        if not _apt(*_INSTALL, *packages):
            # apt's lists of packages may be old or missing, so they are fetched before the second attempt.
            _apt("apt-get", "update", "-qq")
            _apt(*_INSTALL, *packages)


def _apt(*command: str) -> bool:
    done = subprocess.run(
        command,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    return done.returncode == 0


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ignore SIGINT, SIGTERM and SIGHUP in this context: half-installed packages would break later installations."""
    kept = {
        number: signal.signal(number, signal.SIG_IGN)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


@contextmanager
def _files(contents: dict[Path, str]) -> Iterator[None]:
    """Write each file that does not exist yet. Remove the written files when the context ends."""
    made = [path for path in contents if not path.exists()]
    try:
        for path in made:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(contents[path])
            path.chmod(0o755)
        yield
    finally:
        for path in made:
            path.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
