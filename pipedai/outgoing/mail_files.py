"""Writes mails into files instead of sending them, in development without EMAIL_URL (SPEC §15)."""

import os
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend

from pipedai.ids import new_id
from pipedai.logs import get_logger

log = get_logger(__name__)


def mail_folder() -> Path:
    return Path(settings.DATA_DIR) / "mail"


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
        path = mail_folder() / f"{new_id().hex}.eml"
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
