"""Starts and ends the gateway of one run, in a thread of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pipedai_worker.gateway.faults import ServerFault
from pipedai_worker.tool_calls import ToolCalls


class Gateway:
    """A context manager that serves one run's MCP server on the loopback interface, from entry to exit.

    `url` is what the CLI's configuration names. Its path ends in /sse if the server speaks the older transport.
    """

    url: str

    def __init__(
        self,
        *,
        url: str,
        headers: Mapping[str, str],
        calls: ToolCalls,
        before_first_effect: Callable[[], None],
    ) -> None:
        """Take the server's URL and the trigger's headers. A bad one is told by `probe()`.

        `before_first_effect` is called in a thread of its own before the first call that may have an effect is sent. The
        call is in `calls` by then. It returns once the API knows of the call; if it raises, the call is not sent. It must
        return or raise soon after the run has been stopped.
        """
        raise NotImplementedError

    def __enter__(self) -> Gateway:
        """Listen. Raises OSError."""
        raise NotImplementedError

    def __exit__(self, *_: object) -> None:
        """Close every connection. Calls that have no answer yet stay `unknown`."""

    def probe(self) -> ServerFault | None:
        """Initialise the server and list its tools, in 30 s at most; None if it can be used."""
        raise NotImplementedError
