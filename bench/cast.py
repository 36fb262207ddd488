"""Makes, through the API, what the benchmarks need: workers, their triggers, and keys that fire them."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bench.http import Connection

# Environments have ceilings: 200 keys, of which each worker's registration uses one.
_PAIRS_PER_ENVIRONMENT = 100

# The trigger has secret headers, as most MCP servers need some: each poll must open them.
_TRIGGER = {
    "name": "Nightly report",
    "prompt": "Summarise yesterday's tickets, and name the three that need an answer first.",
    "model": "sonnet",
    "maxRetries": 10,
    "retryAfterEffects": True,
    "mcpUrl": "https://mcp.example.com/mcp",
    "mcpHeaders": {"Authorization": "Bearer not-a-real-token"},
}


@dataclass(frozen=True, slots=True, repr=False)
class Pair:
    """A worker and its one trigger, with the `pwk_` key that fires the trigger."""

    environment_id: str
    api_key: str
    trigger_id: str
    worker_id: str
    worker_token: str


def register(connection: Connection) -> str:
    """Register a user, and return their session cookie."""
    body = {
        "email": f"bench-{secrets.token_hex(4)}@example.com",
        "password": secrets.token_urlsafe(16),
    }
    return connection.call("POST", "/auth/register", body=body).session_cookie


def make_pairs(port: int, count: int, *, capacity: int = 1) -> list[Pair]:
    """Make `count` pairs, in as many environments as they need. Each worker takes `capacity` runs at a time."""
    with Connection(port) as connection:
        return list(Customer(connection).pairs(count, capacity))


class Customer:
    """A user who makes a workspace of their own. It can be used while its connection is open."""

    def __init__(self, connection: Connection) -> None:
        self._cookie = register(connection)
        self._connection = connection
        self._workspace = self.post("/workspaces", name="Bench")["id"]

    def pairs(self, count: int, capacity: int) -> Iterator[Pair]:
        """Yield `count` new pairs, in as many environments as they need."""
        for number in range(count):
            if number % _PAIRS_PER_ENVIRONMENT == 0:
                environment_id, api_key = self.environment(f"bench-{number}")
            yield self.pair(environment_id, api_key, f"host-{number}", capacity)

    def environment(self, name: str) -> tuple[str, str]:
        """Make an environment, and return its id and a `pwk_` key of it."""
        made = self.post(f"/workspaces/{self._workspace}/environments", name=name)
        return made["id"], self._key(made["id"], "pwk")

    def pair(
        self, environment_id: str, api_key: str, hostname: str, capacity: int = 1, **trigger: Any
    ) -> Pair:
        """Make a worker and its trigger. `trigger` has further fields of the trigger."""
        registered = self.post(
            "/workers/register",
            token=self._key(environment_id, "wrk"),
            hostname=hostname,
            os="linux",
            version="1.0.0",
            maxConcurrency=capacity,
        )
        values = {**_TRIGGER, "workerId": registered["workerId"], **trigger}
        made = self.post(f"/environments/{environment_id}/triggers", **values)
        return Pair(
            environment_id,
            api_key,
            made["id"],
            registered["workerId"],
            registered["workerToken"],
        )

    def post(self, path: str, **body: Any) -> Any:
        """Post the body as the customer, and return the answer's body. Raises ProcessFailed."""
        return self._connection.call("POST", path, cookie=self._cookie, body=body).json()

    def _key(self, environment_id: str, prefix: str) -> str:
        body = {"name": "bench", "prefix": prefix}
        return str(self.post(f"/environments/{environment_id}/api-keys", **body)["token"])
