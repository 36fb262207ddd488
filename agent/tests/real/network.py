"""Runs programs in a network with a loopback interface only, and tells which other addresses they tried to reach."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from bin.ending import die_with_parent
from testing.processes.programs import lacking

from . import packets

_AGENT = Path(__file__).resolve().parents[2]
_PACKET = 65_536


class LoopbackNetwork:
    """A network of its own. Programs inside reach only what listens inside.

    A test process is outside. What it serves to those inside, it serves on a socket from `listener()`.
    """

    def __init__(self, holder: subprocess.Popen[bytes], asking: socket.socket) -> None:
        self._holder = holder
        self._asking = asking
        self._watching = self._sockets(b"w")
        for each in self._watching:
            each.setblocking(False)

    def listener(self) -> socket.socket:
        """Return a TCP socket that listens inside, on a free port of 127.0.0.1."""
        (listener,) = self._sockets(b"l")
        return listener

    def inside(self, command: Sequence[str]) -> list[str]:
        """Return the command line that runs a command inside. Its process is the command's own."""
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        return ["nsenter", f"--target={self._holder.pid}", *user, "--net", "--", *command]

    def strangers(self) -> list[str]:
        """Say where programs inside tried to go since the last call, beside loopback addresses."""
        found: dict[str, None] = {}
        for each in self._watching:
            with suppress(BlockingIOError):
                while packet := each.recv(_PACKET):
                    if where := packets.destination(packet):
                        found[where] = None
        return list(found)

    def close(self) -> None:
        """Stop watching."""
        for each in self._watching:
            each.close()

    def _sockets(self, question: bytes) -> list[socket.socket]:
        self._asking.sendall(question)
        answer, descriptors, _, _ = socket.recv_fds(self._asking, 1, 2)
        if not answer:
            lacking("A network of its own can't be set up: `ip` failed in it.")
        return [socket.socket(fileno=each) for each in descriptors]


@contextmanager
def loopback_network() -> Iterator[LoopbackNetwork]:
    """Make a network for the time of the block.

    Where the kernel refuses that, the test is skipped, and in CI it fails.
    """
    if any(shutil.which(name) is None for name in ("unshare", "nsenter", "ip")):
        lacking(
            "The real claude is tested in a network of its own: Linux with unshare, nsenter and ip."
        )
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    probe = subprocess.run(["unshare", *user, "--net", "true"], capture_output=True, check=False)
    if probe.returncode:
        lacking("The real claude is tested in a network of its own, and the kernel refuses one.")
    ours, its = socket.socketpair()
    program = [sys.executable, "-m", "tests.real.network_holder", str(its.fileno())]
    with ours, its:
        holder = subprocess.Popen(
            ["unshare", *user, "--net", *program],
            cwd=_AGENT,
            stdin=subprocess.DEVNULL,
            pass_fds=[its.fileno()],
            preexec_fn=die_with_parent(signal.SIGKILL),
        )
        its.close()
        try:
            with closing(LoopbackNetwork(holder, ours)) as network:
                yield network
        finally:
            holder.kill()
            holder.wait()
