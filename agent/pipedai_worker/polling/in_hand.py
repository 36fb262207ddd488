"""What a worker has in hand, each in a thread: the runs that it executes, and what it settles without executing it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pipedai_worker.api.answers import ApiError
from pipedai_worker.api.patience import GaveUp
from pipedai_worker.events.sender import Sender, send_left
from pipedai_worker.logs import get_logger
from pipedai_worker.reporting.calls import report
from pipedai_worker.reporting.outcome import WAITING, Outcome
from pipedai_worker.running import recovery
from pipedai_worker.running.run import Run, Surroundings
from pipedai_worker.running.stopping import run_in_background

log = get_logger(__name__)


@dataclass
class InHand:
    """Only the main thread calls the methods. When a thread has ended, `_deliver` lets the main thread call `_on_ended`
    with the thread's run, or None if it settled something, and the error for which the worker has to end, or None.
    """

    _around: Surroundings
    _deliver: Callable[[Callable[[], None]], None]
    _on_ended: Callable[[Run | None, ApiError | None], None]
    runs: dict[str, Run] = field(default_factory=dict)
    # The runs that were granted and are not written to disk yet, and those that the API does not know yet to wait.
    # Until then the worker asks for no other run.
    claiming: set[str] = field(default_factory=set)
    settling: int = 0

    def launch(self, run: Run) -> None:
        self.runs[run.assigned.id] = run
        self.claiming.add(run.assigned.id)
        run_in_background(f"run {run.assigned.id}", lambda: self._in_thread(run, run.live))

    def settle_the_past(self) -> None:
        """Clean up after an earlier process of this worker, and report what it could not report."""
        around = self._around
        recovery.clean_up(around.journal, around.executor)
        left = around.journal.events()
        for run_id, body in around.journal.outcomes().items():
            if body.get("status") == WAITING:
                # Until the API knows that the run waits, it must not be taken anew: the late report would end that.
                self.claiming.add(run_id)
            self._settle(partial(self._report_left, run_id, body, left.pop(run_id, None)))
        if left:
            # Nothing waits for these events. What can't be sent before the worker exits stays on disk.
            run_in_background("events", lambda: send_left(around.api, left, around.leaving))

    def _report_left(self, run_id: str, body: dict[str, Any], events: Path | None) -> None:
        """Report a run of an earlier process, and then send its events: before, the API may not take them."""
        around = self._around
        try:
            status = report(
                around.api, around.journal, around.executor, run_id, body, around.leaving
            )
        finally:
            around.claimed(run_id)
        if events is not None:
            sender = Sender(around.api, run_id, events, around.leaving)
            sender.finish()
            sender.end(status)

    def hand_back(self, run_id: str, outcome: Outcome) -> None:
        """Report a run that was granted, and is not begun."""
        # Until the claimId is dropped, the worker asks for nothing: another call with it would get this run again, or a
        # run whose claimId is then dropped too early.
        self.claiming.add(run_id)
        around = self._around
        self._settle(
            partial(
                recovery.hand_back,
                *(around.api, around.journal, around.executor),
                *(run_id, outcome),
                kept=partial(around.claimed, run_id),
                wait=around.leaving,
            )
        )

    def _settle(self, work: Callable[[], None]) -> None:
        self.settling += 1
        run_in_background("settle", lambda: self._in_thread(None, work))

    def _in_thread(self, run: Run | None, work: Callable[[], None]) -> None:
        error: ApiError | None = None
        try:
            work()
        except ApiError as caught:
            error = caught
        except GaveUp:
            # The API did not answer before the worker had to exit. The run stays on disk, and the next start asks the
            # API again.
            log.info("left to the next start: %s", run.assigned.id if run else "older runs")
        except OSError as caught:
            log.error("the worker's files can't be written: %s", caught)
        except Exception:
            log.exception("a run's thread failed")
        finally:
            self._deliver(lambda: self._end(run, error))

    def _end(self, run: Run | None, error: ApiError | None) -> None:
        if run is None:
            self.settling -= 1
        else:
            self.runs.pop(run.assigned.id, None)
            self.claiming.discard(run.assigned.id)
        self._on_ended(run, error)
