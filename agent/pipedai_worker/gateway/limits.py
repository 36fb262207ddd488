"""Bounds what a run's gateway takes from the CLI and from the MCP server, in bytes, seconds and numbers."""

from __future__ import annotations

KIB = 1024
MIB = 1024 * KIB

# What the gateway takes from the CLI.
LARGEST_HEAD = 64 * KIB
LARGEST_REQUEST = 16 * MIB
MOST_MESSAGES = 100
LONGEST_ID = 1024
MOST_CONNECTIONS = 128
# How many connections may be open that have not sent a request with this gateway's secret path. The oldest of them is
# closed for a new one.
MOST_STRANGERS = 64
# How many bytes all bodies may have that are held at the same time.
MOST_HELD = 64 * MIB
# The first request of a connection, and each body, must have arrived within this time.
REQUEST_SECONDS = 60.0
# A refused connection is still read for so long, because a client that is cut off does not read the refusal.
LINGER_SECONDS = 2.0

# What it takes from the MCP server. It holds each event, and each answer that is no stream, as a whole to read it.
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
# A server that is silent for this long has failed. During a tool call, and on a stream that the CLI has opened, it may
# be silent for as long as the run lasts.
SILENCE_SECONDS = 120.0
PROBE_SECONDS = 30.0
FAREWELL_SECONDS = 2.0
# Servers close idle connections after 5 s or more, so the gateway closes them before.
IDLE_SECONDS = 4.0
# The system notices a dead peer when it has not answered for IDLE + INTERVAL * COUNT seconds.
KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_COUNT = 30, 10, 3
