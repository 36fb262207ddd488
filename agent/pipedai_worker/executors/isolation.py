"""Keeps a run of claude to its own prompt, MCP server and directory, by command-line options and variables."""

from __future__ import annotations

import json

# With these variables claude reads no file that the prompt mentions, keeps no memory from run to run, and calls no
# service but the model's API and the run's MCP server.
VARIABLES = {
    "CLAUDE_CODE_DISABLE_FILE_MENTIONS": "1",
    # Older versions of claude do not know the variable above. This variable, too, makes them read no file that the
    # prompt mentions. It also makes claude load all tools at once, which does no harm, because the run's MCP server is
    # configured with `alwaysLoad` anyway.
    "CLAUDE_CODE_DISABLE_ATTACHMENTS": "1",
    "CLAUDE_CODE_DISABLE_AUTO_MEMORY": "1",
    "CLAUDE_CODE_DISABLE_CRON": "1",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_TELEMETRY": "1",
    "DISABLE_ERROR_REPORTING": "1",
}
OPTIONS = (
    # `--disallowedTools` forbids these tools, and the setting after them refuses messages. Otherwise runs that are
    # executed at the same time could find each other and send each other messages.
    "--disallowedTools",
    "SendMessage",
    "ListAgents",
    "--settings",
    json.dumps({"crossSessionInbound": "refuse"}),
    # Claude reads the settings of the user's account, but none from the run's directory or the directories above it.
    "--setting-sources",
    "user",
)
# Claude then writes no file from which a session can be resumed.
FORGET_SESSION = "--no-session-persistence"
