"""Writes mails as plain text and HTML, and hands them to the operator's mail server, or to files in development.

The mail `accounts/verify` has the templates `mail/accounts/verify.txt` and `.html`, which extend `mail/base`. Texts
that we did not write can't look like links or like our own words. The mail server has limits of time and of bytes.
"""

import contextlib
import os
import re
import smtplib
import socket
import ssl
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from email.errors import MessageError
from email.utils import parseaddr
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import UUID

import idna
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.mail import DNS_NAME, EmailMessage, EmailMultiAlternatives
from django.core.mail.backends.base import BaseEmailBackend
from django.core.mail.backends.smtp import EmailBackend
from django.core.validators import validate_email
from django.template.loader import render_to_string
from django.utils.safestring import SafeString

from pipedai import env
from pipedai.ids import new_id
from pipedai.logs import get_logger
from pipedai.outgoing.posts import OwnAnswer, Result, look_up_within, within

PRODUCT = "PipedAI"
# A mail shows at most this many characters of a text that we did not write.
MAX_FOREIGN = 200
_MAX_SUBJECT = 200

# Mail programs make links of two things: a scheme with `//`, and a dot before a word with a letter. The sign before
# the dot may be any but white space and ASCII punctuation, because the vowel signs of Hindi and other accents count as
# neither letters nor digits.
_SCHEME = re.compile(r":(?=//)")
_DOT = re.compile(r"(?<=[^\s!-/:-@[-^`{-~])[.。．｡](?=\w*[^\W\d])")
# Values of these types can't hold a text that other people wrote.
_PLAIN = (int, float, Decimal, date, timedelta, UUID)
# The Unicode categories of control, invisible, private and unassigned characters, and of breaks of lines.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def mail_host(address: str) -> str:
    """Returns an outbox row's `host` for a mail: the domain after an @, which no URL's host begins with."""
    return f"@{address.rpartition('@')[2]}"


def is_mail(host: str) -> bool:
    return host.startswith("@")


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail to one address. Its texts may hold a token, so they are not in its `repr`, and neither is the address."""

    to: str = field(repr=False)
    subject: str = field(repr=False)
    text: str = field(repr=False)
    # The text as HTML. It is empty if the mail has plain text only.
    html: str = field(repr=False)
    # Further headers. Sending a mail fails if one of them contains a line break.
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


class Own(str):
    """A text of ours, such as a link, which `compose` does not change. HTML in it is escaped all the same."""

    __slots__ = ()


def compose(
    name: str,
    *,
    to: str,
    subject: str,
    values: Mapping[str, Any] | None = None,
    link: str = "",
    why: str = "",
    headers: Mapping[str, str] | None = None,
    is_plain: bool = False,
) -> Mail:
    """Returns the mail with this name, without HTML if `is_plain`. Texts in `values`, also nested ones, go through
    `foreign`, as if written by others, unless they are `Own`. `link` is shown as a button, `why` at the end. `subject`
    and `why` may name values in braces, and must not contain texts of others themselves.
    """
    safe: dict[str, Any] = {key: _made_safe(value) for key, value in (values or {}).items()}
    context = {**safe, "product": PRODUCT, "link": link, "why": why.format_map(safe)}
    text = render_to_string(f"mail/{name}.txt", context).strip() + "\n"
    html = "" if is_plain else render_to_string(f"mail/{name}.html", context)
    named = " ".join(subject.format_map(safe).split())
    return Mail(to, named[:_MAX_SUBJECT], text, html, dict(headers or {}))


def foreign(text: str) -> str:
    """Returns a text that we did not write as one line of at most 200 characters without links."""
    line = unlinked(text)
    return line if len(line) <= MAX_FOREIGN else line[: MAX_FOREIGN - 1].rstrip() + "…"


def unlinked(text: str) -> str:
    """Returns a text that we did not write as one line without links and invisible characters: `Visit
    https://evil.example now` becomes `Visit https[:]//evil[.]example now`.
    """
    seen = "".join(
        " " if character.isspace() else character
        for character in text
        if character.isspace() or unicodedata.category(character) not in _UNSEEN
    )
    line = " ".join(seen.split())
    return _DOT.sub("[.]", _SCHEME.sub("[:]", line))


def _made_safe(value: Any) -> Any:
    if isinstance(value, Own):
        return value
    if isinstance(value, SafeString):
        raise TypeError("A mail takes no text that is marked as HTML.")
    if isinstance(value, str):
        return foreign(value)
    if isinstance(value, Mapping):
        return {key: _made_safe(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_made_safe(each) for each in value]
    if value is None or isinstance(value, _PLAIN):
        return value
    raise TypeError(f"A mail can't show a {type(value).__name__}.")


log = get_logger(__name__)


class MailNotWritten(Exception):  # noqa: N818 - named as what it says
    """The error for a mail whose file could not be written, as when the disk is full."""


class MailFiles(BaseEmailBackend):
    """Writes each mail into a file for this user alone, because a mail may hold a token, and logs where it is."""

    def send_messages(self, email_messages: Any) -> int:
        for message in email_messages:
            self._write(message)
        return len(email_messages)

    def _write(self, message: EmailMessage) -> None:
        # Ids sort by the time at which they were made, so the files do too.
        path = Path(settings.DATA_DIR) / "mail" / f"{new_id().hex}.eml"
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(message.message().as_bytes())
            except OSError:
                path.unlink()
                raise
        except OSError as error:
            log.warning("mail.not_written", path=str(path), error=error.strerror)
            raise MailNotWritten from error
        log.info("mail.written", path=str(path))


_SHARE_OF_LOOK_UP = 1 / 3
# How many bytes a mail server may send while it takes one mail. Real servers send less than a tenth of this.
_MOST_SAID = 65_536


class BoundedBackend(EmailBackend):
    """Django's SMTP backend, with one deadline for all work on its connection, which a timer then shuts down. This is
    needed because smtplib limits the time of each read, but not the number of reads or of lines in an answer.
    """

    def __init__(self, *, deadline: float, **config: Any) -> None:
        super().__init__(timeout=max(0.1, deadline - time.monotonic()), **config)
        # Whether we have named the recipient to the server. Its answers after that may be about the recipient.
        self.has_named_recipient = False
        self._room = _MOST_SAID
        self._deadline = deadline
        self._guards: list[_Guard] = []

    @property
    def connection_class(self) -> Any:
        """The class of smtplib's connection, changed so that it ends at the deadline or after too many bytes."""
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
        """Ignores errors, because the server has taken the mail by now, or another error is being raised."""
        with contextlib.suppress(OSError, SaysTooMuch):
            super().close()

    def hang_up(self) -> None:
        self.close()
        while self._guards:
            self._guards.pop().end()


class SaysTooMuch(Exception):  # noqa: N818 - named as what it says
    """The error for a mail server that sends more than `_MOST_SAID`. It is no OSError, as smtplib would replace one."""


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


# How many seconds sending a mail may take, from looking up the server's name to its last answer. It is more than the
# time-out of a request, because mail servers make unknown senders wait. It is less than `due.CLAIM_SECONDS`.
TIMEOUT_SECONDS = 30.0


def mail_is_on() -> bool:
    """Whether mails are sent or, in development, written into files. If not, calls that need mail answer 409."""
    return bool(settings.EMAIL_URL) or not settings.PRODUCTION


def deliver(mail: Mail, *, message_id: str, timeout: float = TIMEOUT_SECONDS) -> OwnAnswer:
    """Hands a mail to the server and returns the answer within `timeout` seconds; raises nothing. `message_id` becomes
    the part of Message-ID before the @, so that a mail that is sent twice can be recognised.
    """
    begun = time.monotonic()

    def answer(result: Result, code: int | None = None, error: str | None = None) -> OwnAnswer:
        took = round((time.monotonic() - begun) * 1000)
        if code is not None and code < 0:
            # smtplib gives a code below 0 if the server's answer has no code. The database's column can't hold it.
            code, error = None, error or "the mail server's answer has no code"
        return OwnAnswer(code, took, error, means=result)

    if not mail_is_on():
        return answer(Result.AWAY, error=_OFF)
    try:
        message = _message(mail, message_id)
    except (ValueError, MessageError):
        return answer(Result.REFUSED, error="not an address or header that a mail can have")
    backend: BaseEmailBackend | None = None
    try:
        with _bounded(timeout) as backend:
            backend.send_messages([message])
    except Exception as error:
        result, code, words = _meaning(error)
        if result is Result.AWAY and time.monotonic() - begun >= timeout:
            # The connection was ended at the deadline, and this error is only a consequence.
            code, words = None, "timed out"
            if isinstance(backend, BoundedBackend) and backend.has_named_recipient:
                # A server may ask the recipient's server before it answers, so ours need not be away.
                result, words = (
                    Result.AGAIN,
                    "the mail server did not answer about this mail in time",
                )
        return answer(result, code, words)
    return answer(Result.TAKEN, 250)


def check_server(timeout: float = 10.0) -> str | None:
    """Logs in without sending anything. Returns None, or what went wrong in a few words."""
    try:
        with _bounded(timeout) as backend:
            backend.open()
    except Exception as error:
        _, code, words = _meaning(error)
        return words or f"it answered {code}"
    return None


def _message(mail: Mail, message_id: str) -> EmailMultiAlternatives:
    """Returns the mail for Django's backends. Raises ValueError for a bad address or header. Headers must not contain
    `=?`, because mail programs decode the characters after it (RFC 2047), which may hide a link.
    """
    sender = parseaddr(settings.EMAIL_FROM)[1]
    headers = {
        "Message-ID": f"<{message_id}@{_domain(sender)}>",
        # Tells vacation programs to send no answer (RFC 3834 §5).
        "Auto-Submitted": "auto-generated",
        **mail.headers,
    }
    subject = mail.subject.replace("=?", "=[?]")
    if any("=?" in value for value in mail.headers.values()):
        raise ValueError("an encoded word")
    message = EmailMultiAlternatives(
        subject, mail.text, settings.EMAIL_FROM, [_address(mail.to)], headers=headers
    )
    if mail.html:
        message.attach_alternative(mail.html, "text/html")
    # Building the message now checks its headers before anything is sent.
    message.message()
    return message


def _address(text: str) -> str:
    """Returns the e-mail address in a text. Raises ValueError if the text is not one address without a name."""
    address = f"{text.rpartition('@')[0]}@{_domain(text)}"
    try:
        validate_email(address)
    except ValidationError:
        address = ""
    if not address.isprintable() or not address or "=?" in address:
        raise ValueError("not an address")
    return address


def _domain(address: str) -> str:
    """Returns the domain in ASCII by IDNA 2008. Raises ValueError. Django would use Python's codec, whose older rules
    turn `straße.example` into `strasse.example`, a domain of other people.
    """
    return idna.encode(address.rpartition("@")[2], uts46=True).decode()


@contextlib.contextmanager
def _bounded(timeout: float) -> Iterator[BaseEmailBackend]:
    """Yields a backend whose work ends within `timeout` seconds, whatever the server does."""
    if not settings.EMAIL_URL:
        yield MailFiles()
        return
    backend = BoundedBackend(deadline=time.monotonic() + timeout, **_config(settings.EMAIL_URL))
    try:
        yield backend
    finally:
        backend.hang_up()


@lru_cache(maxsize=2)
def _config(url: str) -> dict[str, Any]:
    return env.email_config(url)


def _meaning(error: Exception) -> tuple[Result, int | None, str | None]:
    """Returns the result of a failure, the server's code, and a description of ours, which has no addresses."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        ((refusal, _),) = error.recipients.values()  # A mail has one recipient.
        return _of_code(refusal)
    if isinstance(error, smtplib.SMTPDataError):
        return _of_code(error.smtp_code)
    code = error.smtp_code if isinstance(error, smtplib.SMTPResponseException) else None
    for kind, words in _AWAY:
        if isinstance(error, kind):
            return Result.AWAY, code, words
    log.warning("mail.failed", error=type(error).__name__)
    return Result.AGAIN, None, "sending failed"


# The descriptions of failures that say nothing about the mail. The first entry whose class fits the error counts.
_AWAY: tuple[tuple[type[Exception], str], ...] = (
    (SaysTooMuch, "the mail server says too much"),
    (smtplib.SMTPAuthenticationError, "the mail server refuses our login"),
    (smtplib.SMTPSenderRefused, "the mail server refuses our address"),
    (smtplib.SMTPResponseException, "the mail server refuses us"),
    (smtplib.SMTPServerDisconnected, "connection lost"),
    (smtplib.SMTPNotSupportedError, "the mail server lacks what EMAIL_URL asks for"),
    (ssl.SSLError, "TLS failed"),
    (socket.gaierror, "name not found"),
    (TimeoutError, "timed out"),
    (ConnectionRefusedError, "could not connect"),
    (ConnectionError, "connection lost"),
    (MailNotWritten, "the file of the mail can't be written"),
    (OSError, "could not connect"),
    # A ValueError means that the host is not a valid name, or that the login is not in ASCII.
    (ValueError, "the host or login in EMAIL_URL can't be used"),
)
_GOING_AWAY = "the mail server is going away"
_OFF = "mail is off: EMAIL_URL is not set"
# The errors of attempts with the result `AWAY`.
AWAY_ERRORS = frozenset({words for _, words in _AWAY} | {_GOING_AWAY, _OFF})


def _of_code(code: int) -> tuple[Result, int, str | None]:
    """Returns the result of an answer with this code. 4xx asks for another try, as in greylisting, and 5xx is final
    (RFC 5321 §4.2.1). 421 means that the server itself stops for now.
    """
    if code == 421:
        return Result.AWAY, code, _GOING_AWAY
    return Result.AGAIN if code < 500 else Result.REFUSED, code, None
