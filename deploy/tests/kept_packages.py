"""Keeps the packages that bin/setup installs on copies of this machine."""

from contextlib import AbstractContextManager

from pipedai.env import BASE_DIR
from testing.processes.kept_folder import kept_folder
from testing.processes.spare_machine import Machine

_DECIDING = ("requirements.txt", "bin/setup", ".python-version")


def kept_packages(machine: Machine, directory: str) -> AbstractContextManager[bool]:
    """Gives a directory of the machine the .venv of an earlier run, or keeps the one that the block makes there."""
    # A virtual environment works at one path only, and with one Python.
    told = f"{directory} {machine.run('python3', '-VV')}".encode()
    files = [(BASE_DIR / name).read_bytes() for name in _DECIDING]
    return kept_folder(machine.path(f"{directory}/.venv"), told, *files)
