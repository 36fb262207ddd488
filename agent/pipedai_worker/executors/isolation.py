"""Keeps a run of claude to its own prompt, server and directory, by claude's options and variables."""

from __future__ import annotations

import json
from uuid import UUID, uuid5

# The namespace of the sessions' ids. It is random, and has to stay as it is.
_SESSIONS = UUID("5d0f3c52-3c8e-4c55-9c4e-0f6a2f1b7a90")

# Claude reads no file that the prompt mentions, loads no memory, writes none, and calls nobody but the model's API.
VARIABLES = {
    "CLAUDE_CODE_DISABLE_FILE_MENTIONS": "1",
    # Older versions of claude do not know the variable above, and read no mentioned file because of this one. It also
    # keeps tools from being loaded late, which no run needs: its server has `alwaysLoad`.
    "CLAUDE_CODE_DISABLE_ATTACHMENTS": "1",
    "CLAUDE_CODE_DISABLE_AUTO_MEMORY": "1",
    "CLAUDE_CODE_DISABLE_CRON": "1",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_TELEMETRY": "1",
    "DISABLE_ERROR_REPORTING": "1",
}
OPTIONS = (
    # With these tools, runs that are executed at the same time could find each other and send each other messages.
    "--disallowedTools",
    "SendMessage",
    "ListAgents",
    "--settings",
    json.dumps({"crossSessionInbound": "refuse"}),
    # Only the account's own settings count, and none of the directories above the run's.
    "--setting-sources",
    "user",
    "--no-session-persistence",
)


def session_of(claim_id: str) -> str:
    """Return the id of the session of one attempt, so that the next start of the worker knows it too."""
    return str(uuid5(_SESSIONS, claim_id))
