"""Makes a temporary copy of this machine, for tests of an installation.

The copy sees this machine's files, but its writes go to an overlay in memory. It has its own processes, and its own
network with only a loopback interface. Only root on Linux can make one.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

from bin.ending import die_with_parent
from testing.processes.programs import lacking

_CLONE_NEWNET = 0x40000000
_PREPARE = """
set -e
# On a disk, writing and removing the thousands of files of an installation costs seconds of CPU time.
mount -t tmpfs -o mode=755 tmpfs "$1/written"
mkdir "$1/written/upper" "$1/written/work"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/written/upper,workdir=$1/written/work" "$1/root"
cd "$1/root"
mount -t proc proc proc
mount --bind /sys sys
mount --bind /dev dev
mount -t tmpfs tmpfs dev/shm
mount -t tmpfs -o mode=1777 tmpfs tmp
# What this machine has and an empty one has not.
for emptied in run srv etc/pipedai etc/postgresql var/lib/pipedai var/lib/postgresql; do
  mkdir -p $emptied
  mount -t tmpfs -o mode=755 tmpfs $emptied
done
ip link set lo up
touch "$1/ready"
exec sleep infinity
"""


class Machine:
    """One temporary machine."""

    def __init__(self, directory: Path, init: int) -> None:
        self._directory = directory
        self._init = init
        self._started: list[subprocess.Popen[bytes]] = []

    def path(self, path: str) -> Path:
        """Returns the path under which this machine sees a file of the other one, while that one runs."""
        return Path(f"/proc/{self._init}/root{self._directory}/root{path}")

    def run(
        self,
        *command: str,
        network: bool = False,
        directory: str = "/",
        environment: Mapping[str, str] = {},
    ) -> str:
        """Runs a command as root and returns its output. With `network` it may use the real machine's network.

        `environment` has further variables. Raises AssertionError if the command fails.
        """
        done = subprocess.run(  # noqa: S603
            self._inside(*command, network=network, directory=directory),
            env={**_environment(), **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=600,
        )
        assert done.returncode == 0, f"{command} failed:\n{done.stdout}"
        return done.stdout

    def start(
        self,
        *command: str,
        log: Path,
        network: bool = False,
        directory: str = "/",
        environment: Mapping[str, str] = {},
    ) -> "subprocess.Popen[bytes]":
        """Starts a process on the machine, like `run`. It is killed when the machine ends."""
        with log.open("ab") as output:
            process = subprocess.Popen(  # noqa: S603
                self._inside(*command, network=network, directory=directory),
                env={**_environment(), **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._started.append(process)
        return process

    def make_read_only(self) -> None:
        """Lets no process write to the machine's files from now on, except to its file systems in memory."""
        enter = ["nsenter", f"--target={self._init}", "--mount"]
        root = f"{self._directory}/root"
        subprocess.run([*enter, "mount", "-o", "remount,bind,ro", root], check=True)  # noqa: S603

    def end(self) -> None:
        """Kills all processes of the machine."""
        os.kill(self._init, signal.SIGKILL)
        for process in self._started:
            process.wait()

    @contextmanager
    def network(self) -> Iterator[None]:
        """Moves this thread into the machine's network for the time of the block."""
        with open("/proc/thread-self/ns/net") as ours, open(f"/proc/{self._init}/ns/net") as its:  # noqa: PTH123
            _enter(its.fileno())
            try:
                yield
            finally:
                _enter(ours.fileno())

    def _inside(self, *command: str, network: bool, directory: str) -> list[str]:
        kinds = ["--mount", "--pid", "--ipc"] + ([] if network else ["--net"])
        root = f"{self._directory}/root"
        enter = ["nsenter", f"--target={self._init}", *kinds, "chroot", root]
        return [*enter, "sh", "-c", f'cd {directory} && exec "$@"', "sh", *command]


@contextmanager
def machine(directory: Path) -> Iterator[Machine]:
    """Runs a machine for the time of the block. It is mounted in `directory`, which is removed at the end."""
    if os.geteuid() != 0 or any(
        shutil.which(name) is None for name in ("unshare", "nsenter", "ip")
    ):
        lacking("A copy of the machine needs root, and Linux with unshare, nsenter and ip.")
    for name in ("written", "root"):
        (directory / name).mkdir()
        (directory / name).chmod(0o755)
    own = ["--mount", "--net", "--pid", "--ipc", "--fork", "--kill-child=KILL"]
    command = ["unshare", *own, "sh", "-c", _PREPARE, "sh", str(directory)]
    holder = subprocess.Popen(command, preexec_fn=die_with_parent(signal.SIGKILL))  # noqa: S603
    try:
        made = Machine(directory, _init(holder, directory))
        try:
            yield made
        finally:
            made.end()
    finally:
        holder.kill()
        holder.wait()
        shutil.rmtree(directory)


def _init(holder: "subprocess.Popen[bytes]", directory: Path) -> int:
    deadline = time.monotonic() + 20
    while not (directory / "ready").exists():
        if holder.poll() is not None:
            lacking("A copy of the machine can't be made: unshare or mount was refused.")
        assert time.monotonic() < deadline
        time.sleep(0.02)
    (child,) = psutil.Process(holder.pid).children()
    return child.pid


def _environment() -> dict[str, str]:
    """Returns the environment of a user who has just logged in, with this machine's settings for pip."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("PIP_", "SSL_")) or name.lower().endswith("_proxy")
    }
    return {
        "PATH": "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        **kept,
    }


def _enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")
