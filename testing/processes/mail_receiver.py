"""Receives mails on a real socket, by SMTP, and answers as a test tells it."""

import asyncio
import contextlib
import email
import email.policy
import logging
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import EmailMessage
from pathlib import Path
from typing import Any, Literal

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

# The library logs all that it hears, addresses too. Only the service's own log lines are of interest.
logging.getLogger("mail.log").setLevel(logging.WARNING)


@dataclass
class ReceivedMail:
    """A mail as it arrived, with the sender and the recipients of its envelope."""

    sender: str
    recipients: list[str]
    raw: bytes

    @property
    def message(self) -> EmailMessage:
        message = email.message_from_bytes(self.raw, policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        return message

    def part(self, kind: str) -> str:
        """Returns the text of the mail's part of this kind, `plain` or `html`."""
        found = self.message.get_body((kind,))
        assert found is not None
        return str(found.get_content())


@dataclass
class MailReceiver:
    """A mail server. It answers RCPT with the next of `answers`, and takes the mail when they are used up.

    An answer is a line of SMTP such as `550 no such user`, or `stall` or `drop`, which stop in the middle of a mail.
    `data_answers` are those after a mail's text.
    """

    answers: list[str] = field(default_factory=list)
    data_answers: list[str] = field(default_factory=list)
    received: list[ReceivedMail] = field(default_factory=list)
    # For each mail, whether it came through TLS.
    encrypted: list[bool] = field(default_factory=list)
    # Ends what stalls, by dropping the connection.
    released: threading.Event = field(default_factory=threading.Event)
    # If there is a password, the server lets nobody send without it.
    password: str = ""
    port: int = 0

    def url(self, login: str = "", scheme: str = "smtp") -> str:
        """Returns the EMAIL_URL of the server."""
        return f"{scheme}://{login}127.0.0.1:{self.port}"

    async def handle_RCPT(  # noqa: N802 - aiosmtpd calls it so
        self, server: Any, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Answers whether the recipient is welcome."""
        if self.password and not session.authenticated:
            return "530 5.7.0 log in first"
        answer = self.answers.pop(0) if self.answers else "250 OK"
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return await self._behave(server, answer)

    async def handle_DATA(self, server: Any, session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Answers whether the mail is taken."""
        answer = self.data_answers.pop(0) if self.data_answers else "250 OK"
        if answer.startswith("250"):
            content = envelope.content
            assert isinstance(content, bytes)
            assert envelope.mail_from is not None
            mail = ReceivedMail(envelope.mail_from, list(envelope.rcpt_tos), content)
            self.received.append(mail)
            self.encrypted.append(server.transport.get_extra_info("ssl_object") is not None)
        return await self._behave(server, answer)

    def log_in(self, server: Any, session: Any, envelope: Any, how: str, login: Any) -> AuthResult:
        """Answers whether a password is right."""
        return AuthResult(success=login.password.decode() == self.password, handled=False)

    async def _behave(self, server: Any, answer: str) -> str:
        while answer == "stall" and not self.released.is_set():
            await asyncio.sleep(0.02)
        if answer in {"stall", "drop"}:
            server.transport.abort()
        return answer


@contextlib.contextmanager
def receiving_mail(
    *,
    password: str = "",
    tls: Literal["starttls", "at-once"] = "starttls",
    certificate: Path | None = None,
) -> Iterator[MailReceiver]:
    """Runs a mail server on a free port of the loopback interface for the time of the block.

    With a `certificate`, a file that has its key too, it speaks TLS. `tls` then says whether it offers STARTTLS, which
    is needed to log in, or speaks TLS from the first byte.
    """
    context = None
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    receiver = MailReceiver(password=password)
    loop = asyncio.new_event_loop()

    def protocol() -> SMTP:
        return SMTP(
            receiver,
            loop=loop,
            hostname="test",
            auth_require_tls=context is not None and tls == "starttls",
            tls_context=context if tls == "starttls" else None,
            authenticator=receiver.log_in if password else None,
        )

    async def end() -> None:
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    server = loop.run_until_complete(
        loop.create_server(protocol, "127.0.0.1", 0, ssl=context if tls == "at-once" else None)
    )
    receiver.port = server.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever, name="mail-receiver", daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        asyncio.run_coroutine_threadsafe(end(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
