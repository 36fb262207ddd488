"""The product's main job over HTTP alone: an account, a worker, a trigger, and runs from the queue to success.

It knows the API and nothing of the code behind it, so that it can be put to other versions of that code.
"""

from typing import Any

import httpx

PASSWORD = "correct horse battery"  # noqa: S105


class MainJob:
    """A new account's environment with one worker and one trigger, at the API of this base URL.

    Each request has a connection of its own, so that a site's processes share them.
    """

    def __init__(self, api: str, *, email: str = "main-job@example.com", **trigger: Any) -> None:
        self._api = api
        user = {"email": email, "password": PASSWORD}
        answer = httpx.post(f"{api}/auth/register", json=user, timeout=30).raise_for_status()
        self._owner = {"Cookie": f"auth_token={answer.cookies['auth_token']}"}
        workspace = self.post("/workspaces", {"name": "Acme"})
        environment = self.post(f"/workspaces/{workspace['id']}/environments", {"name": "prod"})
        self.environment = f"/environments/{environment['id']}"
        key = self.post(f"{self.environment}/api-keys", {"name": "machine", "prefix": "wrk"})
        machine = {"token": key["token"], "hostname": "m", "os": "linux", "version": "1"}
        registered = self.post("/workers/register", machine)
        self.worker_id = registered["workerId"]
        self._worker = {"Authorization": f"Bearer {registered['workerToken']}"}
        values = {"name": "t", "prompt": "Report.", "mcpUrl": "https://mcp.example.com/"}
        values |= {"workerId": self.worker_id, **trigger}
        self.trigger_id = self.post(f"{self.environment}/triggers", values)["id"]

    def queue(self) -> str:
        """A new run's id."""
        return str(self.post(f"/triggers/{self.trigger_id}/run", {})["id"])

    def claim(self, run_id: str) -> None:
        """The worker finds the run in its poll, and claims it."""
        polled = self._call("GET", f"/workers/{self.worker_id}/poll", self._worker, None)["runs"]
        assert [run["prompt"] for run in polled if run["id"] == run_id] == ["Report."]
        self.report(run_id, "claim", {"claimId": "one"})

    def report(self, run_id: str, verb: str, body: dict[str, Any]) -> Any:
        """One of the worker's calls about a run."""
        path = f"/workers/{self.worker_id}/runs/{run_id}/{verb}"
        return self._call("POST", path, self._worker, body)

    def execute(self) -> Any:
        """Queue a run and have it succeed; the run as the API shows it."""
        run_id = self.queue()
        self.claim(run_id)
        self.report(run_id, "start", {})
        self.report(run_id, "heartbeat", {})
        self.report(run_id, "complete", {"status": "succeeded", "costUsd": "0.01", "numTurns": 1})
        run = self.get(f"/runs/{run_id}")
        assert (run["status"], run["costUsd"]) == ("succeeded", "0.01")
        return run

    def actions(self) -> list[str]:
        """What the audit log has, newest first."""
        entries = self.get(f"{self.environment}/audit-log?limit=200")["items"]
        return [entry["action"] for entry in entries]

    def get(self, path: str) -> Any:
        """As the owner."""
        return self._call("GET", path, self._owner, None)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """As the owner."""
        return self._call("POST", path, self._owner, body)

    def _call(self, method: str, path: str, headers: dict[str, str], body: Any) -> Any:
        url = f"{self._api}{path}"
        answer = httpx.request(method, url, headers=headers, json=body, timeout=30)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()
