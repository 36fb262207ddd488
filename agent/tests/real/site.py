"""The API with an environment of its own, whose triggers and runs the scenarios make."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from uuid import uuid4

import httpx
from testing.processes.main_job import PASSWORD, answered
from testing.processes.web_process import serve_on

from .network import LoopbackNetwork

# A worker sends a heartbeat every third of a lease, and hears only then that its run was canceled. With the default
# lease scenarios would wait 20 s for that.
LEASE_SECONDS = 18
# The service asks authorization servers here, which it would refuse otherwise.
LOOPBACK = "127.0.0.0/8"


class Site:
    """A served API, called as the owner of an environment. Each method checks that its calls succeed.

    `url` is where the workers inside the network reach it, and `database` the name of its database.
    """

    def __init__(self, http: httpx.Client, url: str, database: str) -> None:
        self._http = http
        self.url = url
        self.database = database
        self.post("/auth/register", {"email": f"{uuid4().hex}@example.com", "password": PASSWORD})
        workspace = self.post("/workspaces", {"name": "Acme"})
        environment = self.post(f"/workspaces/{workspace['id']}/environments", {"name": "prod"})
        self.environment = f"/environments/{environment['id']}"

    def register_worker(self, *, auth_mode: str, max_concurrency: int) -> Any:
        """Register a new worker, and return what the API answers: `workerId`, `workerToken` and more."""
        key = self.post(f"{self.environment}/api-keys", {"name": "machine", "prefix": "wrk"})
        machine = {"hostname": uuid4().hex, "os": "linux", "version": "1.0.0"}
        how = {"authMode": auth_mode, "maxConcurrency": max_concurrency}
        return self.post("/workers/register", {"token": key["token"], **machine, **how})

    def queue(self, payload: Any = None, **trigger: Any) -> str:
        """Make a trigger that isn't retried, unless the values say otherwise. Queue a run, and return its id."""
        values = {"name": f"t-{uuid4().hex}", "maxRetries": 0, **trigger}
        made = self.post(f"{self.environment}/triggers", values)
        body = {} if payload is None else {"payload": payload}
        return str(self.post(f"/triggers/{made['id']}/run", body)["id"])

    def get(self, path: str) -> Any:
        """Send a GET."""
        return answered(self._http.get(path))

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Send a POST."""
        return answered(self._http.post(path, json=body))

    def sign_in(self, connection_id: str, agree: Callable[[str], str]) -> None:
        """Authorize a connection as a person does in a browser. `agree` says where the authorization server leads."""
        back = agree(self.post(f"/connections/{connection_id}/authorize", {})["url"])
        form = {**dict(parse_qsl(urlsplit(back).query)), "step": "connect"}
        origin = str(self._http.base_url.copy_with(path="")).rstrip("/")
        page = self._http.post(back.partition("?")[0], data=form, headers={"Origin": origin})
        assert page.status_code == 200, page.text

    def patch(self, path: str, body: dict[str, Any]) -> Any:
        """Send a PATCH."""
        return answered(self._http.patch(path, json=body))


@contextmanager
def site(network: LoopbackNetwork, database: str, directory: Path) -> Iterator[Site]:
    """Serve the API for the time of the block, inside the network and to this process. It logs into the directory."""
    with (
        network.listener() as inside,
        socket.create_server(("127.0.0.1", 0)) as outside,
        serve_on(
            [outside, inside],
            database,
            log=directory / "web.log",
            RUN_LEASE_SECONDS=str(LEASE_SECONDS),
            WEBHOOK_ALLOWED_NETWORKS=LOOPBACK,
        ) as server,
        httpx.Client(base_url=server.api, timeout=60) as http,
    ):
        yield Site(http, f"http://127.0.0.1:{inside.getsockname()[1]}", database)
