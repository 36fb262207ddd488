"""Makes, through the API, what the benchmarks need: workers, their triggers, and keys that fire them."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bench.http_client import Connection

# Environments have ceilings: 200 keys, of which each worker's registration uses one (SPEC §4).
_PAIRS_PER_ENVIRONMENT = 100

# The trigger has secret headers, as most MCP servers need some: each poll must open them.
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
    """A worker and its one trigger, with the `pwk_` key that fires the trigger.

    In a pool, the worker is a member of the pool, and the trigger is the pool's.
    """

    environment_id: str
    api_key: str
    trigger_id: str
    worker_id: str
    worker_token: str


@dataclass(frozen=True, slots=True, repr=False)
class Account:
    """A user with a session, who calls from `address` (None: from this machine's own)."""

    email: str
    password: str
    address: str | None
    cookie: str


def register(connection: Connection, address: str | None = None) -> Account:
    email, password = f"bench-{secrets.token_hex(4)}@example.com", secrets.token_urlsafe(16)
    body = {"email": email, "password": password}
    answer = connection.call("POST", "/auth/register", address=address, body=body)
    return Account(email, password, address, answer.session_cookie)


def make_pairs(port: int, count: int, *, capacity: int = 1, pool: bool = False) -> list[Pair]:
    """Make `count` pairs, in as many environments as they need. Each worker takes `capacity` runs at a time.

    With `pool`, they are all in one environment, and in one pool of it.
    """
    with Connection(port) as connection:
        customer = Customer(connection)
        return list((customer.pairs_of_pool if pool else customer.pairs)(count, capacity))


class Customer:
    """A user who makes a workspace of their own. It can be used while its connection is open."""

    def __init__(self, connection: Connection, address: str | None = None) -> None:
        self.account = register(connection, address)
        self._connection = connection
        self._workspace = self.post("/workspaces", name="Bench")["id"]

    def pairs(self, count: int, capacity: int) -> Iterator[Pair]:
        """Yield `count` new pairs, in as many environments as they need."""
        for number in range(count):
            if number % _PAIRS_PER_ENVIRONMENT == 0:
                environment_id, api_key = self.environment(f"bench-{number}")
            yield self.pair(environment_id, api_key, f"host-{number}", capacity)

    def pairs_of_pool(self, count: int, capacity: int) -> Iterator[Pair]:
        """Yield `count` new pairs in one pool of an environment of their own."""
        environment_id, api_key = self.environment("bench-pool")
        pool_id = self.post(f"/environments/{environment_id}/pools", name="Bench")["id"]
        for number in range(count):
            yield self.pair(environment_id, api_key, f"host-{number}", capacity, pool_id=pool_id)

    def environment(self, name: str) -> tuple[str, str]:
        """Make an environment, and return its id and a `pwk_` key of it."""
        made = self.post(f"/workspaces/{self._workspace}/environments", name=name)
        return made["id"], self._key(made["id"], "pwk")

    def pair(
        self,
        environment_id: str,
        api_key: str,
        hostname: str,
        capacity: int = 1,
        *,
        pool_id: str | None = None,
        **trigger: Any,
    ) -> Pair:
        """Make a worker and its trigger. `trigger` has further fields of the trigger.

        With `pool_id` the worker joins that pool, and the pool's workers do the runs of the trigger.
        """
        pools = {} if pool_id is None else {"poolIds": [pool_id]}
        registered = self.post(
            "/workers/register",
            token=self._key(environment_id, "wrk", **pools),
            hostname=hostname,
            os="linux",
            version="1.0.0",
            maxConcurrency=capacity,
        )
        assigned = {"workerId": registered["workerId"]} if pool_id is None else {"poolId": pool_id}
        values = {**_TRIGGER, **assigned, **trigger}
        made = self.post(f"/environments/{environment_id}/triggers", **values)
        return Pair(
            environment_id,
            api_key,
            made["id"],
            registered["workerId"],
            registered["workerToken"],
        )

    def post(self, path: str, **body: Any) -> Any:
        """Post the body as the customer, and return the answer's body. Raises BenchFailed."""
        who = {"cookie": self.account.cookie, "address": self.account.address}
        return self._connection.call("POST", path, **who, body=body).json()

    def _key(self, environment_id: str, prefix: str, **fields: Any) -> str:
        body = {"name": "bench", "prefix": prefix, **fields}
        return str(self.post(f"/environments/{environment_id}/api-keys", **body)["token"])
