"""Hands mails to the operator's mail server by SMTP, and says what its answer means (SPEC §15).

The operator chose the server in `EMAIL_URL`, so the rules for customers' URLs do not hold for it.
"""

import contextlib
import smtplib
import socket
import ssl
import time
from collections.abc import Iterator
from email.errors import MessageError
from email.utils import parseaddr
from functools import lru_cache
from typing import Any

import idna
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.mail import EmailMultiAlternatives
from django.core.mail.backends.base import BaseEmailBackend
from django.core.validators import validate_email

from pipedai import env
from pipedai.logs import get_logger
from pipedai.outgoing.mail_files import MailFiles, MailNotWritten
from pipedai.outgoing.mails import Mail
from pipedai.outgoing.posts import OwnAnswer, Result
from pipedai.outgoing.smtp import BoundedBackend, SaysTooMuch

log = get_logger(__name__)

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
            # smtplib has a code below 0 if the server's answer has none, and no column keeps it.
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
                # Servers may ask the recipient's server before they answer, so this says nothing about our own.
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
    """Returns the mail for Django's backends. Raises ValueError for a bad address or header. No text has `=?`, because
    mail programs decode what follows (RFC 2047), which may hide a link.
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
    """Raises ValueError if the text is anything but one address, such as a name with an address."""
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
    """Returns what a failure means, the server's code, and our own words, since the error's may have addresses."""
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
    """Returns an answer's meaning: 4xx asks for another try, as greylisting does; 5xx is final (RFC 5321 §4.2.1); 421
    means that the server itself stops for now.
    """
    if code == 421:
        return Result.AWAY, code, _GOING_AWAY
    return Result.AGAIN if code < 500 else Result.REFUSED, code, None
