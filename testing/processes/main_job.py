"""The product's main job over HTTP alone: an account, a worker, a trigger, and runs from the queue to success.

It knows the API and nothing of the code behind it, so that it can be put to other versions of that code, and to
deployments.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx

PASSWORD = "correct horse battery staple"  # noqa: S105
HEADERS = {"Authorization": "Bearer the-mcp-server's-secret"}


class MainJob:
    """A new account's environment with one worker, one trigger and a key to fire it.

    `http` is at the API's base URL, and keeps the account's cookie. Each call is checked.
    """

    def __init__(self, http: httpx.Client, **trigger: Any) -> None:
        self._http = http
        self.email = f"{uuid4().hex}@example.com"
        self.post("/auth/register", {"email": self.email, "password": PASSWORD})
        workspace = self.post("/workspaces", {"name": "Acme"})
        environment = self.post(f"/workspaces/{workspace['id']}/environments", {"name": "prod"})
        self.environment = f"/environments/{environment['id']}"
        self.api_key = self._mint("pwk")
        machine = {"token": self._mint("wrk"), "hostname": "m", "os": "linux", "version": "1"}
        registered = self.post("/workers/register", machine)
        self.worker_id = registered["workerId"]
        self.worker_token = registered["workerToken"]
        values: dict[str, Any] = {
            "name": "t",
            "prompt": "Report.",
            "mcpUrl": "https://mcp.example.com/",
        }
        values |= {"mcpHeaders": HEADERS, "workerId": self.worker_id, **trigger}
        self.trigger_id = self.post(f"{self.environment}/triggers", values)["id"]

    @classmethod
    def at(cls, api: str, **trigger: Any) -> "MainJob":
        """At the API of this base URL. Each request has a connection of its own: a site's processes share them."""
        limits = httpx.Limits(max_keepalive_connections=0)
        return cls(httpx.Client(base_url=api, limits=limits, timeout=30), **trigger)

    def queue(self) -> str:
        """A new run's id."""
        return str(self.post(f"/triggers/{self.trigger_id}/run", {})["id"])

    def poll(self, wait: int = 0) -> list[dict[str, Any]]:
        """The runs that the worker is handed, after so many seconds at most."""
        path = f"/workers/{self.worker_id}/poll?wait={wait}"
        headers = {"Authorization": f"Bearer {self.worker_token}"}
        runs: list[dict[str, Any]] = answered(
            self._http.get(path, headers=headers, timeout=wait + 30)
        )["runs"]
        return runs

    def claim(self, run_id: str) -> None:
        """The worker finds the run in its poll, whole, and claims it."""
        (handed_out,) = (run for run in self.poll() if run["id"] == run_id)
        assert (handed_out["prompt"], handed_out["mcpHeaders"]) == ("Report.", HEADERS)
        self.report(run_id, "claim", {"claimId": "one"})

    def report(self, run_id: str, verb: str, body: dict[str, Any]) -> Any:
        """One of the worker's calls about a run."""
        path = f"/workers/{self.worker_id}/runs/{run_id}/{verb}"
        headers = {"Authorization": f"Bearer {self.worker_token}"}
        return answered(self._http.post(path, json=body, headers=headers))

    def finish(self, run_id: str) -> Any:
        """The worker takes a queued run to success; the run as the API shows it."""
        self.claim(run_id)
        self.report(run_id, "start", {})
        self.report(run_id, "heartbeat", {})
        self.report(run_id, "complete", {"status": "succeeded", "costUsd": "0.01", "numTurns": 1})
        run = self.get(f"/runs/{run_id}")
        assert (run["status"], run["costUsd"]) == ("succeeded", "0.01")
        return run

    def execute(self) -> Any:
        """Queue a run and have it succeed; the run as the API shows it."""
        return self.finish(self.queue())

    def woken(self) -> float:
        """How many seconds after a run was queued a poll that was waiting had it; it is finished."""
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(self.poll, 25)
            time.sleep(1)
            queued = time.monotonic()
            run_id = self.queue()
            (handed_out,) = waiting.result(timeout=40)
            took = time.monotonic() - queued
        assert handed_out["id"] == run_id
        self.finish(run_id)
        return took

    def actions(self) -> list[str]:
        """What the audit log has, newest first."""
        entries = self.get(f"{self.environment}/audit-log?limit=200")["items"]
        return [entry["action"] for entry in entries]

    def get(self, path: str) -> Any:
        """As the owner."""
        return answered(self._http.get(path))

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """As the owner."""
        return answered(self._http.post(path, json=body))

    def _mint(self, prefix: str) -> str:
        key = self.post(f"{self.environment}/api-keys", {"name": prefix, "prefix": prefix})
        return str(key["token"])


def answered(answer: httpx.Response) -> Any:
    """The JSON of an answer that is no error."""
    request = answer.request
    assert answer.is_success, (
        f"{request.method} {request.url.path}: {answer.status_code} {answer.text}"
    )
    return answer.json()
