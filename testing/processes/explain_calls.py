"""Brings the states of a run about through the API, and asks what `GET /runs/:id/explain` says about them."""

from typing import Any
from uuid import UUID

from testing.processes.worker_calls import WorkerCalls
from testing.world.cast import Cast


class Calls:
    """The calls of an admin and of the cast's worker."""

    def __init__(self, cast: Cast) -> None:
        self.cast = cast
        self.admin = cast.client(cast.admin)
        self.worker = WorkerCalls(cast.worker)
        self.worker_url = f"/api/v1/workers/{cast.worker.worker_id}"
        self.trigger_url = f"/api/v1/triggers/{cast.trigger_id}"

    def change_trigger(self, **values: Any) -> None:
        assert self.admin.patch(self.trigger_url, values).status_code == 200

    def change_worker(self, **values: Any) -> None:
        assert self.admin.patch(self.worker_url, values).status_code == 200

    def queue(self, trigger_id: UUID | None = None) -> str:
        url = f"/api/v1/triggers/{trigger_id or self.cast.trigger_id}/run"
        return str(self.admin.post(url).json()["id"])

    def cancel(self, run_id: str) -> None:
        assert self.admin.post(f"/api/v1/runs/{run_id}/cancel").status_code == 200

    def end(self, status: str, *, cancel: bool = False, **report: Any) -> str:
        """Queues a run, and lets the worker claim and end it."""
        run_id: Any = self.queue()
        assert self.worker.claim(run_id).status_code == 200
        if cancel:
            self.cancel(run_id)
        assert self.worker.complete(run_id, status=status, **report).status_code == 200
        return str(run_id)

    def explain(self, run_id: str) -> dict[str, Any]:
        answer = self.cast.client(self.cast.viewer).get(f"/api/v1/runs/{run_id}/explain")
        assert answer.status_code == 200
        body: dict[str, Any] = answer.json()
        return body


def only(answer: dict[str, Any]) -> dict[str, Any]:
    """Returns the only reason of an answer."""
    (reason,) = answer["waitingFor"]
    assert answer["summary"] == reason["message"]
    return dict(reason)


def worker_subject(cast: Cast) -> dict[str, str]:
    return {"type": "worker", "id": str(cast.worker.worker_id), "name": "host-1"}
