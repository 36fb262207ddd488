"""Makes who and what a benchmark is about, through the API: workers, their triggers, keys to fire them."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bench.http_client import Connection

# Environments have ceilings: 200 keys, of which each worker's registration uses one (SPEC §4).
_PAIRS_PER_ENVIRONMENT = 100

# Secret headers, since most MCP servers want some: a poll has to open them.
_TRIGGER = {
    "name": "Nightly report",
    "prompt": "Summarise yesterday's tickets, and name the three that need an answer first.",
    "model": "sonnet",
    "maxRetries": 10,
    "mcpUrl": "https://mcp.example.com/mcp",
    "mcpHeaders": {"Authorization": "Bearer not-a-real-token"},
}


@dataclass(frozen=True, slots=True, repr=False)
class Pair:
    """A worker and the one trigger that it works for, with the `pwk_` key that fires it."""

    environment_id: str
    api_key: str
    trigger_id: str
    worker_id: str
    worker_token: str


def make_pairs(port: int, count: int, *, capacity: int = 1) -> list[Pair]:
    """So many pairs, in as many environments as they need; each worker takes `capacity` runs at a time."""
    with Connection(port) as connection:
        return list(_Maker(connection, capacity).make(count))


class _Maker:
    """A customer who sets up an account."""

    def __init__(self, connection: Connection, capacity: int) -> None:
        self._connection = connection
        self._capacity = capacity
        account = {
            "email": f"bench-{secrets.token_hex(4)}@example.com",
            "password": secrets.token_urlsafe(16),
        }
        self._cookie = connection.call("POST", "/auth/register", body=account).session_cookie
        self._workspace = self._post("/workspaces", name="Bench")["id"]

    def make(self, count: int) -> Iterator[Pair]:
        for number in range(count):
            if number % _PAIRS_PER_ENVIRONMENT == 0:
                environment_id, api_key = self._environment(f"bench-{number}")
            yield self._pair(environment_id, api_key, f"host-{number}")

    def _environment(self, name: str) -> tuple[str, str]:
        made = self._post(f"/workspaces/{self._workspace}/environments", name=name)
        return made["id"], self._key(made["id"], "pwk")

    def _pair(self, environment_id: str, api_key: str, hostname: str) -> Pair:
        registered = self._post(
            "/workers/register",
            token=self._key(environment_id, "wrk"),
            hostname=hostname,
            os="linux",
            version="1.0.0",
            maxConcurrency=self._capacity,
        )
        trigger = self._post(
            f"/environments/{environment_id}/triggers", **_TRIGGER, workerId=registered["workerId"]
        )
        return Pair(
            environment_id,
            api_key,
            trigger["id"],
            registered["workerId"],
            registered["workerToken"],
        )

    def _key(self, environment_id: str, prefix: str) -> str:
        body = {"name": "bench", "prefix": prefix}
        return str(self._post(f"/environments/{environment_id}/api-keys", **body)["token"])

    def _post(self, path: str, **body: Any) -> Any:
        return self._connection.call("POST", path, cookie=self._cookie, body=body).json()
