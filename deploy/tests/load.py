"""Clients and workers that keep calling while a deployment restarts, and check that nothing is lost."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import httpx

from testing.processes.main_job import MainJob, answered

Client = Callable[[], httpx.Client]


class Load:
    """Clients that each fire a trigger, and the workers that execute the runs.

    A request without an answer is sent once more, as the documentation asks of clients. If that fails
    too, the load ends with the error.
    """

    def __init__(self, client: Client, *, jobs: int) -> None:
        self._client = client
        self._jobs = jobs
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.fired: set[str] = set()
        self.executed: Counter[str] = Counter()

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Runs the load during the block, and then waits until all runs have been executed."""
        with self._client() as http:
            jobs = [MainJob(http) for _ in range(self._jobs)]
        with ThreadPoolExecutor(2 * self._jobs) as pool:
            parts = [pool.submit(part, job) for job in jobs for part in (self._fire, self._work)]
            try:
                yield
            finally:
                self._stop.set()
            for part in parts:
                part.result(timeout=60)

    def _fire(self, job: MainJob) -> None:
        with self._client() as http:
            while not self._stop.is_set():
                headers = {
                    "Authorization": f"Bearer {job.api_key}",
                    "Idempotency-Key": str(uuid4()),
                }
                path = f"/triggers/{job.trigger_id}/run"
                run = self._ask(http, "POST", path, json={}, headers=headers)
                with self._lock:
                    self.fired.add(run["id"])
                self._stop.wait(0.2)

    def _work(self, job: MainJob) -> None:
        headers = {"Authorization": f"Bearer {job.worker_token}"}
        path = f"/workers/{job.worker_id}"
        with self._client() as http:
            while True:
                stopping = self._stop.is_set()
                wait = 0 if stopping else 5
                runs = self._ask(http, "GET", f"{path}/poll?wait={wait}", headers=headers)["runs"]
                for run in runs:
                    for verb, body in (
                        ("claim", {"claimId": "load"}),
                        ("start", {}),
                        ("complete", {"status": "succeeded"}),
                    ):
                        call = f"{path}/runs/{run['id']}/{verb}"
                        self._ask(http, "POST", call, json=body, headers=headers)
                    with self._lock:
                        self.executed[run["id"]] += 1
                if stopping and not runs:
                    return

    def _ask(self, http: httpx.Client, method: str, path: str, **request: Any) -> Any:
        try:
            answer = http.request(method, path, **request)
            again = answer.status_code in {502, 503, 504}
        except httpx.TransportError:
            again = True
        if again:
            time.sleep(0.5)
            answer = http.request(method, path, **request)
        return answered(answer)
