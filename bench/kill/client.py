"""The client that requests the runs. It repeats each request until it gets an answer."""

import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from bench.cast import Pair
from bench.http import BASE_PATH
from testing.processes.stack import HOST

_PATIENCE_SECONDS = 60.0
_PAUSE_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Request:
    """A run to request, when to request it (in seconds after the beginning), and what the run does."""

    after: float
    key: str
    trigger_id: str
    payload: dict[str, Any]


def plan(
    rng: random.Random, pairs: Sequence[Pair], *, runs: int, seconds: float, busy_seconds: float
) -> list[Request]:
    """Plan `runs` requests over `seconds`. Each run takes `busy_seconds` on average, and one in eight fails."""
    return [
        Request(
            after=after,
            key=f"kill-{number}",
            trigger_id=rng.choice(pairs).trigger_id,
            payload={
                "seconds": round(rng.uniform(0, 2 * busy_seconds), 3),
                "exitCode": int(rng.random() < 1 / 8),
            },
        )
        for number, after in enumerate(sorted(rng.uniform(0, seconds) for _ in range(runs)))
    ]


class Client:
    """Sends the requests in a thread of its own, each with its own `Idempotency-Key`."""

    def __init__(self, port: int, api_key: str, requests: Sequence[Request]) -> None:
        self.answers: dict[str, str] = {}  # the runs' ids, by their requests' keys
        self.lost_answers = 0
        self._requests = requests
        self._http = httpx.Client(
            base_url=f"http://{HOST}:{port}{BASE_PATH}",
            headers={"Authorization": f"Bearer {api_key}"},
            trust_env=False,
            timeout=10,
        )
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait until every request is answered. Raises what went wrong."""
        self._thread.join()
        self._http.close()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        begin = time.monotonic()
        try:
            for request in self._requests:
                time.sleep(max(0.0, begin + request.after - time.monotonic()))
                self.answers[request.key] = self._ask(request)
        except Exception as failure:
            self._failure = failure

    def _ask(self, request: Request) -> str:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                answer = self._http.post(
                    f"/triggers/{request.trigger_id}/run",
                    json={"payload": request.payload},
                    headers={"Idempotency-Key": request.key},
                )
                if not answer.is_server_error:
                    answer.raise_for_status()
                    return str(answer.json()["id"])
            except httpx.TransportError:
                if time.monotonic() > deadline:
                    raise
            self.lost_answers += 1
            time.sleep(_PAUSE_SECONDS)
