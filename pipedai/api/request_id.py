"""Keeps the id of the request that is being served, for log lines, error bodies and audit rows."""

import re
from contextvars import ContextVar

from pipedai.ids import new_id
from pipedai.redaction import redact_text

# The outer ASGI wrapper sets this variable for each request. Django's threads see it, because each runs in a copy of
# the request's context.
current_request_id: ContextVar[str] = ContextVar("request_id", default="")

_ACCEPTED = re.compile(r"[A-Za-z0-9._-]{1,128}")


def accept_or_make(sent: str | None) -> str:
    """Returns the caller's `X-Request-Id` if it is well-formed (SPEC §2) and holds none of our tokens, else a new id.

    An id that holds a token is replaced, because the id is written to every log line and audit row, and these must hold
    no secret.
    """
    if sent and _ACCEPTED.fullmatch(sent) and redact_text(sent) == sent:
        return sent
    return str(new_id())
