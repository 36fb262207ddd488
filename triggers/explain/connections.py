"""Explains what a run waits for whose trigger's connection has no fresh token (SPEC §24)."""

from datetime import datetime

from pipedai.sql import Row
from triggers.explain.answers import Reason, Subject
from triggers.explain.clock_words import moment_words
from triggers.explain.schedulers import without_scheduler
from triggers.reasons import WaitingFor
from workspaces.connections.models import Connection

Grant, Status = Connection.Grant, Connection.Status
_AUTHORIZE = "Sign in on the connection's page in the console, to which POST /connections/:id/authorize leads."
_NEW_SECRET = "Correct the client's secret with PATCH /connections/:id (clientSecret)."  # noqa: S105


def connection_reason(run: Row, *, now: datetime | None) -> Reason:
    """Returns the reason why a run, a row of `triggers.explain.runs`, waits for its trigger's connection. It takes one
    statement if a scheduler is to get the token.
    """
    name, status = run["connection_name"], run["connection_status"]
    is_code = run["connection_grant"] == Grant.AUTHORIZATION_CODE
    until = None
    remedy: str | None = _AUTHORIZE if is_code else _NEW_SECRET
    if status == Status.NEEDS_LOGIN:
        message = f"Connection {name} needs a new login. {run['connection_error']}"
    elif status == Status.UNAUTHORIZED and is_code:
        message = f"Nobody has signed in for connection {name} yet."
    else:
        message, until = _by_schedulers(run)
        if nobody := without_scheduler(now=now):
            message, remedy = f"{message[:-1]}, but {nobody}.", None
        elif status != Status.FAILING:
            remedy = None
    return Reason(
        WaitingFor.CONNECTION_NOT_READY,
        message,
        Subject("connection", run["connection_id"], name),
        until=until,
        remedy=remedy,
    )


def _by_schedulers(run: Row) -> tuple[str, datetime | None]:
    """Returns in words that schedulers ask for a token, and when they do so again after a failure."""
    name, again = run["connection_name"], run["connection_refresh_at"]
    if run["connection_error"] is None:
        return f"A scheduler is getting a fresh token for connection {name}.", None
    words = f"Connection {name} gets no fresh token. {run['connection_error']}"
    if again <= run["now"]:
        return words, None
    at = moment_words(again, run["now"], to_the_second=True)
    return f"{words[:-1]}; schedulers try again at {at}.", again
