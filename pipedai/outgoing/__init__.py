"""Sends what the service has to say to others: requests to URLs that customers gave us, and mails.

No other code of the service may send either (SPEC §7). An app that has something to send writes a row into an outbox of
its own, in the transaction that causes the message, and the scheduler sends it. The module `kinds` shows how an app
registers an outbox. The modules:

| module | responsible for |
| --- | --- |
| `kinds` | what an app says about the messages that it sends |
| `rows` | the columns and indexes of an outbox |
| `due` | which messages are sent next, and which sender claims them |
| `attempts` | sending a message, what is kept of the attempt, and when the next attempt is due |
| `pool` | how many messages are sent at once, and by which threads |
| `posts`, `request`, `addresses` | what a request says, its signatures and its answer, how and where it is sent |
| `mails`, `mail_server`, `smtp`, `mail_files` | what a mail says, and how it is sent or written into a file |
"""

from pipedai.outgoing.addresses import names_forbidden_address, names_forbidden_port
from pipedai.outgoing.kinds import Attempt, CannotSend, Kind, NeverSend
from pipedai.outgoing.mail_server import mail_is_on
from pipedai.outgoing.mails import Mail, compose, foreign, mail_host
from pipedai.outgoing.pool import register_kind, registered_kinds
from pipedai.outgoing.posts import Answer, Post, Result, host_of, signed_post
from pipedai.outgoing.request import post
from pipedai.outgoing.rows import (
    OutboxRow,
    SendAttempt,
    SendStatus,
    attempt_constraints,
    outbox_constraints,
    outbox_indexes,
)

__all__ = [
    "Answer",
    "Attempt",
    "CannotSend",
    "Kind",
    "Mail",
    "NeverSend",
    "OutboxRow",
    "Post",
    "Result",
    "SendAttempt",
    "SendStatus",
    "attempt_constraints",
    "compose",
    "foreign",
    "host_of",
    "mail_host",
    "mail_is_on",
    "names_forbidden_address",
    "names_forbidden_port",
    "outbox_constraints",
    "outbox_indexes",
    "post",
    "register_kind",
    "registered_kinds",
    "signed_post",
]
