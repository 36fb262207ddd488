"""Passes TCP connections on, for programs that can't reach a Unix socket's directory, or are in another network."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

_CHUNK = 65_536


@contextlib.contextmanager
def relayed(path: Path) -> Iterator[int]:
    """Listens on a port of 127.0.0.1 for the time of the block, and yields the port.

    Each connection to it is passed on to the socket at `path`, until either side closes it.
    """

    def call() -> socket.socket:
        called = socket.socket(socket.AF_UNIX)
        called.connect(str(path))
        return called

    with socket.create_server(("127.0.0.1", 0)) as listener, passed_on(listener, call):
        yield listener.getsockname()[1]


@contextlib.contextmanager
def passed_on(listener: socket.socket, call: Callable[[], socket.socket]) -> Iterator[None]:
    """Passes each connection to the listener on to a socket that `call` connects, for the time of the block."""
    accepting = threading.Thread(target=_accept, args=(listener, call), daemon=True)
    accepting.start()
    try:
        yield
    finally:
        # This wakes the thread that waits in accept().
        listener.shutdown(socket.SHUT_RDWR)
        accepting.join()


def _accept(listener: socket.socket, call: Callable[[], socket.socket]) -> None:
    while True:
        try:
            caller, _ = listener.accept()
        except OSError:
            return
        called = call()
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
