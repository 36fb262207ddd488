"""Bounds what a run's gateway takes from the run's program and from the MCP server, in bytes, seconds and numbers."""

KIB = 1024
MIB = 1024 * KIB

# These constants, down to LINGER_SECONDS, limit what the gateway accepts from the run's program.
LARGEST_HEAD = 64 * KIB
LARGEST_REQUEST = 16 * MIB
MOST_MESSAGES = 100
LONGEST_ID = 1024
MOST_CONNECTIONS = 128
# How many connections may wait until the gateway takes them, if the system allows so many. They wait in turn, so a
# client that comes while strangers connect without end is late, but not refused.
MOST_UNTAKEN = 4096
# How many connections may be open that have not sent a request with the secret path. Beyond that the oldest is closed.
MOST_STRANGERS = 64
# In a run with rules: the most levels of a message or a tool's schema, and the most refused calls that are counted.
MOST_LEVELS = 100
MOST_REFUSED = 10_000
# How many bytes of request bodies the gateway may have in memory at the same time.
MOST_HELD = 64 * MIB
# The first request of a connection, and each body, must have arrived within this time.
REQUEST_SECONDS = 60.0
# After a refusal, a connection is read for so long. Were it closed at once, the client might not read the refusal.
LINGER_SECONDS = 2.0

# These constants, down to MOST_WAITING, limit what the gateway accepts from the MCP server. To read an event, or an
# answer that is no stream, the gateway holds it in memory as a whole.
LARGEST_ANSWER = 16 * MIB
LARGEST_EVENT = 16 * MIB
# A message of this size or more, of either side, is parsed apart from the event loop.
LARGE_MESSAGE = 256 * KIB
LARGEST_TOOLS_LIST = 4 * MIB
LARGEST_LOOK = 8 * MIB
MOST_TOOLS_PAGES = 100
MOST_TOOLS = 10_000
# The gate keeps at most this many bytes of a server's schemas, to check the headers that repeat a call's arguments. It
# checks at most MOST_MIRRORS such headers of one tool and of one call.
LARGEST_SCHEMAS = 4 * MIB
MOST_MIRRORS = 100
LONGEST_SESSION_ID = 1024
# The gateway remembers so many requests without an answer. Beyond that it does not recognise the oldest one's answer.
MOST_WAITING = 1_000

CONNECT_SECONDS = 10.0
SEND_SECONDS = 30.0
# An answer that takes longer as a whole has failed, except for a tool call's answer and a stream that the CLI opened.
ANSWER_SECONDS = 120.0
PROBE_SECONDS = 30.0
FAREWELL_SECONDS = 2.0
# The gateway asks for new headers this long before the old ones expire, or when half of their time is left if that is
# shorter. By then the service has refreshed them.
RENEWED_BEFORE = 30.0
# The API takes no second request for a run's headers within this time.
RENEWAL_PAUSE = 5.0
# A request that the server refused waits this long for new headers.
RENEWAL_SECONDS = 10.0
# Servers close idle connections after 5 s or more. The gateway closes them earlier, so that it sends on no closing one.
IDLE_SECONDS = 4.0
# The system notices a dead peer when it has not answered for IDLE + INTERVAL * COUNT seconds.
KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_COUNT = 30, 10, 3
