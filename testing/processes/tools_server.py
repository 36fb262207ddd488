"""Serves the demo's MCP server for tests whose runs need a server that answers."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer

from bin import demo_tools


@contextmanager
def tools_server(port: int = 0) -> Iterator[str]:
    """Serve it for the time of the block, on a free port unless one is named, and return its URL."""
    with ThreadingHTTPServer(("127.0.0.1", port), demo_tools.Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield demo_tools.url_at(server.server_port)
        finally:
            server.shutdown()
            thread.join()
