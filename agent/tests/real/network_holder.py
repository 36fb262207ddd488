"""Holds a network of its own, and hands out sockets that belong to it.

    unshare --net python -m tests.real.network_holder FD

FD is a socket. Every byte that comes in asks for sockets: `l` for a TCP socket that listens on the loopback
interface, `w` for the two packet sockets that see what leaves the interface (see `packets.py`). The answer is
one byte, with the sockets as ancillary data. The program ends when the other side closes FD.
"""

from __future__ import annotations

import socket
import subprocess
import sys

from . import packets


def main(asked: socket.socket) -> None:
    """Answer until the other side is gone."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    # Every address in the world is this machine, so that a packet to any of them can be seen on `lo`.
    for version, everywhere in (("-4", "0.0.0.0/0"), ("-6", "::/0")):
        subprocess.run(
            ["ip", version, "route", "add", "local", everywhere, "dev", "lo"],
            check=version == "-4",
            stderr=subprocess.DEVNULL,
        )
    while question := asked.recv(1):
        sockets = [_listener()] if question == b"l" else packets.watching_sockets()
        socket.send_fds(asked, [question], [each.fileno() for each in sockets])
        for each in sockets:
            each.close()


def _listener() -> socket.socket:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(256)
    return listener


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
