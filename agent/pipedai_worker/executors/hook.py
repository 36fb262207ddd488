"""Asks the run's gateway, as claude's PreToolUse hook, what claude is to do with a tool call.

The program is started by its path in front of each call of a gated run, so it imports little. If it fails, claude goes
on with the call, and the gateway refuses it.
"""

import http.client
import json
import sys
from urllib.parse import urlsplit


def main() -> None:
    """Pass claude's question from stdin on, and the answer to stdout. The arguments are the MCP configuration, which
    names the gateway, and how many seconds the gateway has to answer.
    """
    with open(sys.argv[1], encoding="utf-8") as file:  # noqa: PTH123 - pathlib takes long to import
        (server,) = json.load(file)["mcpServers"].values()
    url = urlsplit(server["url"])
    connection = http.client.HTTPConnection(url.netloc, timeout=float(sys.argv[2]))
    path = f"{url.path.rpartition('/')[0]}/hook"
    connection.request("POST", path, sys.stdin.buffer.read(), {"Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        sys.exit(f"The gateway answered {response.status}.")
    sys.stdout.buffer.write(response.read())
    connection.close()


if __name__ == "__main__":
    main()
