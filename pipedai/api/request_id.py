"""The id of the request being served, for log lines, error bodies and audit rows."""

import re
from contextvars import ContextVar

from pipedai.ids import new_id
from pipedai.redaction import redact_text

# The outer ASGI wrapper sets it; the WSGI lane's threads inherit it through their copied context.
current_request_id: ContextVar[str] = ContextVar("request_id", default="")

_ACCEPTED = re.compile(r"[A-Za-z0-9._-]{1,128}")


def accept_or_make(sent: str | None) -> str:
    """The caller's `X-Request-Id` if it is well-formed (SPEC §2) and holds no token of ours, else a fresh one.

    It is kept where nothing secret may be: in every log line, and in audit rows for ever.
    """
    if sent and _ACCEPTED.fullmatch(sent) and redact_text(sent) == sent:
        return sent
    return str(new_id())
