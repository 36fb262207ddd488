"""Keeps the id of the request that is being served, for log lines, error bodies and audit rows."""

import re
from contextvars import ContextVar

from pipedai.ids import new_id
from pipedai.redaction import redact_text

# The outer ASGI wrapper sets this variable. The threads of the WSGI lane run in a copy of the context, so they see it.
current_request_id: ContextVar[str] = ContextVar("request_id", default="")

_ACCEPTED = re.compile(r"[A-Za-z0-9._-]{1,128}")


def accept_or_make(sent: str | None) -> str:
    """Returns the caller's `X-Request-Id` if it is well-formed (SPEC §2) and holds none of our tokens, else a new id.

    A token is refused because every log line and every audit row keeps the id, and neither may hold a secret.
    """
    if sent and _ACCEPTED.fullmatch(sent) and redact_text(sent) == sent:
        return sent
    return str(new_id())
