"""Passes TCP connections on to a Unix socket, for programs that can't reach its directory."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

_CHUNK = 65_536


@contextlib.contextmanager
def relayed(path: Path) -> Iterator[int]:
    """Listens on a port of 127.0.0.1 for the time of the block, and yields the port.

    Each connection to it is passed on to the socket at `path`, until either side closes it.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepting = threading.Thread(target=_accept, args=(listener, path), daemon=True)
        accepting.start()
        try:
            yield listener.getsockname()[1]
        finally:
            # This wakes the thread that waits in accept().
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()


def _accept(listener: socket.socket, path: Path) -> None:
    while True:
        try:
            caller, _ = listener.accept()
        except OSError:
            return
        called = socket.socket(socket.AF_UNIX)
        called.connect(str(path))
        for source, target in ((caller, called), (called, caller)):
            threading.Thread(target=_pass_on, args=(source, target), daemon=True).start()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    """Copies what `source` sends, until it sends no more. The thread that ends second closes both."""
    with contextlib.suppress(OSError):
        while chunk := source.recv(_CHUNK):
            target.sendall(chunk)
    for each in (source, target):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
    source.close()
