"""Sends requests to customers' URLs and mails. No other part of the service sends to other people's servers.

An app writes a row into its outbox in the transaction of the cause; `kinds` shows how. `due` picks and claims messages,
`pool` has the threads, `attempts` sends and records, and `posts` and `mails` are what is sent.
"""

from pipedai.outgoing.kinds import (
    Attempt,
    CannotSend,
    Kind,
    NeverSend,
    OutboxRow,
    Queue,
    SendAttempt,
    SendStatus,
    attempt_constraints,
    outbox_constraints,
    outbox_indexes,
)
from pipedai.outgoing.mails import Mail, compose, foreign, mail_host, mail_is_on
from pipedai.outgoing.pool import Lane, register_kind, registered_kinds
from pipedai.outgoing.posts import (
    Answer,
    Post,
    Result,
    fetch,
    host_of,
    post,
    signed_post,
    standard_key,
    target_problem,
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
