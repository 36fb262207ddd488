"""Does the product's main job over HTTP: makes an account, a worker and a trigger, and takes runs to success.

It uses only the API and no other code of the service, so that it also works with other versions and with deployments.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx

PASSWORD = "correct horse battery staple"  # noqa: S105
HEADERS = {"Authorization": "Bearer the-mcp-server's-secret"}


class MainJob:
    """A new account's environment with one worker, one trigger, and an API key to run the trigger.

    `http` has the API's base URL and the account's cookie. Each method checks that its calls succeed.
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
        """Makes the account at this API. Each request has a new connection, so that all processes of a site get one."""
        limits = httpx.Limits(max_keepalive_connections=0)
        return cls(httpx.Client(base_url=api, limits=limits, timeout=30), **trigger)

    def queue(self) -> str:
        """Queues a new run and returns its id."""
        return str(self.post(f"/triggers/{self.trigger_id}/run", {})["id"])

    def poll(self, wait: int = 0) -> list[dict[str, Any]]:
        """Polls as the worker, for `wait` seconds at most, and returns the runs."""
        path = f"/workers/{self.worker_id}/poll?wait={wait}"
        headers = {"Authorization": f"Bearer {self.worker_token}"}
        runs: list[dict[str, Any]] = answered(
            self._http.get(path, headers=headers, timeout=wait + 30)
        )["runs"]
        return runs

    def claim(self, run_id: str) -> None:
        """Checks that the worker's poll returns the whole run, and claims it."""
        (handed_out,) = (run for run in self.poll() if run["id"] == run_id)
        assert (handed_out["prompt"], handed_out["mcpHeaders"]) == ("Report.", HEADERS)
        self.report(run_id, "claim", {"claimId": "one"})

    def report(self, run_id: str, verb: str, body: dict[str, Any]) -> Any:
        """Makes one of the worker's calls about a run."""
        path = f"/workers/{self.worker_id}/runs/{run_id}/{verb}"
        headers = {"Authorization": f"Bearer {self.worker_token}"}
        return answered(self._http.post(path, json=body, headers=headers))

    def finish(self, run_id: str) -> Any:
        """Takes a queued run to success as the worker, and returns the run as the API shows it."""
        self.claim(run_id)
        self.report(run_id, "start", {})
        self.report(run_id, "heartbeat", {})
        self.report(run_id, "complete", {"status": "succeeded", "costUsd": "0.01", "numTurns": 1})
        run = self.get(f"/runs/{run_id}")
        assert (run["status"], run["costUsd"]) == ("succeeded", "0.01")
        return run

    def execute(self) -> Any:
        """Queues a run, takes it to success, and returns the run as the API shows it."""
        return self.finish(self.queue())

    def woken(self) -> float:
        """Queues and finishes a run, and returns after how many seconds a waiting poll got it."""
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
        """Returns the actions in the audit log, newest first."""
        entries = self.get(f"{self.environment}/audit-log?limit=200")["items"]
        return [entry["action"] for entry in entries]

    def get(self, path: str) -> Any:
        """Sends a GET as the owner."""
        return answered(self._http.get(path))

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Sends a POST as the owner."""
        return answered(self._http.post(path, json=body))

    def _mint(self, prefix: str) -> str:
        key = self.post(f"{self.environment}/api-keys", {"name": prefix, "prefix": prefix})
        return str(key["token"])


def answered(answer: httpx.Response) -> Any:
    """Checks that an answer is no error, and returns its JSON."""
    request = answer.request
    assert answer.is_success, (
        f"{request.method} {request.url.path}: {answer.status_code} {answer.text}"
    )
    return answer.json()
