"""Calls the worker protocol over HTTP, as a worker does."""

import json
from typing import Any
from uuid import UUID

from testing.world.cast import bearer
from workers.registration import Registered


class WorkerCalls:
    """The calls of one worker, with its `wkt_` token. Each method returns the response."""

    def __init__(self, worker: Registered) -> None:
        self._client = bearer(worker.worker_token)
        self._path = f"/api/v1/workers/{worker.worker_id}"

    def poll(self, **query: Any) -> Any:
        """GET …/poll"""
        return self._client.get(f"{self._path}/poll", query)

    def claim_next(self, **body: Any) -> Any:
        """POST …/claim-next"""
        return self._client.post(
            f"{self._path}/claim-next", json.dumps(body), content_type="application/json"
        )

    def sign_off(self) -> Any:
        """POST …/sign-off"""
        return self._client.post(f"{self._path}/sign-off")

    def claim(self, run_id: UUID, **body: Any) -> Any:
        """POST …/claim"""
        return self._post(run_id, "claim", body)

    def start(self, run_id: UUID, **body: Any) -> Any:
        """POST …/start"""
        return self._post(run_id, "start", body)

    def heartbeat(self, run_id: UUID, **body: Any) -> Any:
        """POST …/heartbeat"""
        return self._post(run_id, "heartbeat", body)

    def credentials(self, run_id: UUID, **body: Any) -> Any:
        """POST …/credentials"""
        return self._post(run_id, "credentials", body)

    def complete(self, run_id: UUID, **body: Any) -> Any:
        """POST …/complete"""
        return self._post(run_id, "complete", body)

    def events(self, run_id: UUID, *seqs: int, **event: Any) -> Any:
        """POST …/events, with an event for each of these numbers. `event` replaces what they all have."""
        told = {"at": "2026-05-04T12:00:00.000Z", "type": "text", "text": "Reading…", **event}
        return self.send_events(run_id, [{"seq": seq, **told} for seq in seqs])

    def send_events(self, run_id: UUID, events: list[Any]) -> Any:
        """POST …/events"""
        return self._post(run_id, "events", {"events": events})

    def _post(self, run_id: UUID, verb: str, body: dict[str, Any]) -> Any:
        # We encode the JSON here, because the client's own encoder can't write a lone surrogate.
        return self._client.post(
            f"{self._path}/runs/{run_id}/{verb}", json.dumps(body), content_type="application/json"
        )
