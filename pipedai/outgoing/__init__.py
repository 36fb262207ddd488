"""Sends what the service has to say to others, requests to customers' URLs and mails; nothing else may (SPEC §7).

An app writes a row into its outbox in the transaction of the cause; `kinds` shows how. `due` picks and claims messages,
`pool` has the threads, `attempts` sends and records, and `posts` and `mails` are what is sent.
"""

from pipedai.outgoing.addresses import target_problem
from pipedai.outgoing.kinds import Attempt, CannotSend, Kind, NeverSend, Queue
from pipedai.outgoing.mail_server import mail_is_on
from pipedai.outgoing.mails import Mail, compose, foreign, mail_host
from pipedai.outgoing.pool import Lane, register_kind, registered_kinds
from pipedai.outgoing.posts import Answer, Post, Result, host_of, signed_post, standard_key
from pipedai.outgoing.request import fetch, post
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
    "Lane",
    "Mail",
    "NeverSend",
    "OutboxRow",
    "Post",
    "Queue",
    "Result",
    "SendAttempt",
    "SendStatus",
    "attempt_constraints",
    "compose",
    "fetch",
    "foreign",
    "host_of",
    "mail_host",
    "mail_is_on",
    "outbox_constraints",
    "outbox_indexes",
    "post",
    "register_kind",
    "registered_kinds",
    "signed_post",
    "standard_key",
    "target_problem",
]
