"""Speaks SMTP with the operator's mail server, within a time and a number of bytes, whatever the server does."""

import contextlib
import smtplib
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from django.core.mail import DNS_NAME
from django.core.mail.backends.smtp import EmailBackend

from pipedai.outgoing.request import look_up_within, within

_SHARE_OF_LOOK_UP = 1 / 3
# How many bytes a mail server may say while one mail is sent. Servers say less than a tenth of it.
_MOST_SAID = 65_536


class BoundedBackend(EmailBackend):
    """Django's SMTP backend, with one deadline for all that is done on its connection: a timer then shuts it down.
    smtplib limits the time of each read, but neither their number nor that of an answer's lines.
    """

    def __init__(self, *, deadline: float, **config: Any) -> None:
        super().__init__(timeout=max(0.1, deadline - time.monotonic()), **config)
        # Whether the server was told whom the mail is for. What it says from then on may be about the recipient.
        self.has_named_recipient = False
        self._room = _MOST_SAID
        self._deadline = deadline
        self._guards: list[_Guard] = []

    @property
    def connection_class(self) -> Any:
        """A connection of smtplib that ends at the deadline, or when the server has said too much."""
        backend = self
        kind: type[smtplib.SMTP] = smtplib.SMTP_SSL if self.use_ssl else smtplib.SMTP

        class Connection(kind):  # type: ignore[valid-type, misc]
            file: Any

            def _get_socket(self, host: str, port: int, timeout: float) -> Any:
                plain = backend._connect(host, port)
                if not backend.use_ssl:
                    return plain
                return self.context.wrap_socket(plain, server_hostname=host)

            def getreply(self) -> Any:
                if self.file is None:
                    self.file = _Heard(self.sock.makefile("rb"), backend.hear)
                try:
                    return super().getreply()
                except SaysTooMuch:
                    self.close()
                    raise

            def rcpt(self, *args: Any, **kwargs: Any) -> Any:
                backend.has_named_recipient = True
                return super().rcpt(*args, **kwargs)

        return Connection

    def hear(self, line: bytes) -> None:
        self._room -= len(line)
        if self._room < 0:
            raise SaysTooMuch

    def open(self) -> bool | None:
        # Django greets the server with this machine's full name, which it looks up once in a process. Nothing else
        # limits the time of this look-up.
        within((self._deadline - time.monotonic()) * _SHARE_OF_LOOK_UP, DNS_NAME.get_fqdn)
        return super().open()

    def _connect(self, host: str, port: int) -> socket.socket:
        left = self._deadline - time.monotonic()
        found = look_up_within(left * _SHARE_OF_LOOK_UP, host, port, 0, socket.SOCK_STREAM)
        error: OSError = TimeoutError()
        for family, kind, protocol, _, address in found:
            left = self._deadline - time.monotonic()
            if left <= 0:
                break
            plain = socket.socket(family, kind, protocol)
            try:
                # The attempt gets half of the time that is left, so that the other half remains for another address of
                # the server.
                plain.settimeout(left / 2)
                plain.connect(address)
                plain.settimeout(self._deadline - time.monotonic())
            except (OSError, ValueError) as reason:
                plain.close()
                error = reason if isinstance(reason, OSError) else TimeoutError()
            else:
                self._guards.append(_Guard(plain, self._deadline))
                return plain
        raise error

    def close(self) -> None:
        """An error here does not matter: the mail has been taken, or another error is being raised."""
        with contextlib.suppress(OSError, SaysTooMuch):
            super().close()

    def hang_up(self) -> None:
        self.close()
        while self._guards:
            self._guards.pop().end()


class SaysTooMuch(Exception):  # noqa: N818 - named as what it says
    """The error for a mail server that says more than `_MOST_SAID`. It is no OSError, which smtplib would replace."""


class _Heard:
    """The lines of a mail server, as smtplib reads them, each of which is passed to `hear`."""

    def __init__(self, lines: Any, hear: Callable[[bytes], None]) -> None:
        self._lines, self._hear = lines, hear

    def readline(self, size: int) -> bytes:
        line: bytes = self._lines.readline(size)
        self._hear(line)
        return line

    def close(self) -> None:
        self._lines.close()


class _Guard:
    """Works on a duplicate of the socket's descriptor, because TLS takes it away from the socket object."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._own = connection.dup()
        self._timer = threading.Timer(max(0.0, deadline - time.monotonic()), self._shut_down)
        self._timer.daemon = True
        self._timer.start()

    def _shut_down(self) -> None:
        with contextlib.suppress(OSError):
            self._own.shutdown(socket.SHUT_RDWR)

    def end(self) -> None:
        self._timer.cancel()
        self._own.close()
