"""The main job as people and workers do it who keep a connection: through the proxy, with a key and a waiting poll."""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx

PASSWORD = "correct horse battery staple"
HEADERS = {"Authorization": "Bearer the-mcp-server's-secret"}


@dataclass
class Job:
    """An owner with a session, a trigger, its worker and a key to fire it; each call is checked."""

    http: httpx.Client
    email: str
    trigger_id: str
    worker_id: str
    worker_token: str
    api_key: str

    @classmethod
    def set_up(cls, http: httpx.Client) -> "Job":
        """Register somebody, and make all that a run needs. `http` keeps the cookie."""
        email = f"{uuid4().hex}@example.com"
        asked(http.post("/auth/register", json={"email": email, "password": PASSWORD}))
        workspace = asked(http.post("/workspaces", json={"name": "Acme"}))
        environments = f"/workspaces/{workspace['id']}/environments"
        path = f"/environments/{asked(http.post(environments, json={'name': 'production'}))['id']}"
        keys = {
            prefix: asked(http.post(f"{path}/api-keys", json={"name": prefix, "prefix": prefix}))[
                "token"
            ]
            for prefix in ("pwk", "wrk")
        }
        machine = {"token": keys["wrk"], "hostname": "host-1", "os": "linux", "version": "1.0.0"}
        worker = asked(http.post("/workers/register", json=machine))
        trigger = {
            "name": "Report",
            "prompt": "Report.",
            "mcpUrl": "https://mcp.example.com/",
            "mcpHeaders": HEADERS,
            "workerId": worker["workerId"],
        }
        trigger_id = asked(http.post(f"{path}/triggers", json=trigger))["id"]
        return cls(http, email, trigger_id, worker["workerId"], worker["workerToken"], keys["pwk"])

    def fire(self) -> str:
        """Fire the trigger with the key; the run's id."""
        answer = self.http.post(f"/triggers/{self.trigger_id}/run", json={}, headers=self._key())
        return str(asked(answer)["id"])

    def poll(self, wait: int = 0) -> list[dict[str, Any]]:
        """The runs that the worker is handed."""
        answer = self.http.get(
            f"/workers/{self.worker_id}/poll?wait={wait}", headers=self._worker(), timeout=wait + 20
        )
        runs: list[dict[str, Any]] = asked(answer)["runs"]
        return runs

    def execute(self, run_id: str) -> None:
        """Claim the run, start it and complete it, as the worker."""
        path = f"/workers/{self.worker_id}/runs/{run_id}"
        for verb, body in (
            ("claim", {"claimId": "1"}),
            ("start", {}),
            ("heartbeat", {}),
            ("complete", {"status": "succeeded", "shortMessage": "Done."}),
        ):
            asked(self.http.post(f"{path}/{verb}", json=body, headers=self._worker()))

    def run(self, run_id: str) -> dict[str, Any]:
        """The run as the owner sees it."""
        run: dict[str, Any] = asked(self.http.get(f"/runs/{run_id}"))
        return run

    def once(self) -> dict[str, Any]:
        """A run from beginning to end, as the owner sees it then."""
        run_id = self.fire()
        (handed_out,) = self.poll()
        assert handed_out["id"] == run_id
        assert handed_out["mcpHeaders"] == HEADERS
        self.execute(run_id)
        return self.run(run_id)

    def woken(self) -> float:
        """How many seconds after a run was fired a poll that was waiting had it; it is executed."""
        with ThreadPoolExecutor(1) as pool:
            waiting: Future[list[dict[str, Any]]] = pool.submit(self.poll, 25)
            time.sleep(1)
            fired = time.monotonic()
            run_id = self.fire()
            (handed_out,) = waiting.result(timeout=40)
            took = time.monotonic() - fired
        assert handed_out["id"] == run_id
        self.execute(run_id)
        return took

    def _key(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.api_key}"}

    def _worker(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.worker_token}"}


def asked(answer: httpx.Response) -> Any:
    """The JSON of an answer that is no error."""
    assert answer.is_success, f"{answer.request.method} {answer.url.path}: {answer.text}"
    return answer.json()
