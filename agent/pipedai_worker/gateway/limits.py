"""Bounds what a run's gateway takes from the CLI and from the MCP server, in bytes, seconds and numbers."""

from __future__ import annotations

KIB = 1024
MIB = 1024 * KIB

# From the CLI.
LARGEST_HEAD = 64 * KIB
LARGEST_REQUEST = 16 * MIB
MOST_MESSAGES = 100
LONGEST_ID = 1024
MOST_CONNECTIONS = 128
# Connections that have not sent a request yet that names this gateway's path; the oldest one makes way for a new one.
MOST_STRANGERS = 64
# All bodies that are held at the same time.
MOST_HELD = 64 * MIB
# A new connection's first request, and each body, must have come after so long.
REQUEST_SECONDS = 60.0
# A refused connection is still read for so long, because a client that is cut off does not read the refusal.
LINGER_SECONDS = 2.0

# From the MCP server. An event, and an answer that is no stream, are held whole so that the gateway can read them.
LARGEST_ANSWER = 16 * MIB
LARGEST_EVENT = 16 * MIB
LARGEST_TOOLS_LIST = 4 * MIB
MOST_TOOLS_PAGES = 100
MOST_TOOLS = 10_000
LONGEST_SESSION_ID = 1024
# Beyond so many calls without an answer, the gateway no longer looks for the answer of the oldest one.
MOST_WAITING = 1_000

CONNECT_SECONDS = 10.0
SEND_SECONDS = 30.0
# The server may be silent for so long, but in a tool call and in a stream that the CLI opened as long as the run lasts.
SILENCE_SECONDS = 120.0
PROBE_SECONDS = 30.0
FAREWELL_SECONDS = 2.0
# Servers close idle connections after 5 s or more, so the gateway closes them before.
IDLE_SECONDS = 4.0
# The system notices a dead peer when it has not answered for IDLE + INTERVAL * COUNT seconds.
KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_COUNT = 30, 10, 3
