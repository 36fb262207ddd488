"""Asks a run's MCP server whether it works, before the run's program starts. It stops asking if the run is stopped."""

from __future__ import annotations

import threading

from pipedai_worker.executors.base import Execution
from pipedai_worker.gateway import Gateway, ServerFault
from pipedai_worker.logs import get_logger
from pipedai_worker.reporting.outcome import FAILED, INFRA, Outcome
from pipedai_worker.running.stopping import StopRequest, run_in_background

log = get_logger(__name__)

LOOK_SECONDS = 0.1


def probe(gateway: Gateway, stop: StopRequest) -> Execution | None:
    """Return None if the run's MCP server can be used.

    Otherwise, or if the run is stopped meanwhile, return how the run ends.
    """
    ended = threading.Event()
    faults: list[ServerFault | None] = []

    def ask() -> None:
        try:
            faults.append(gateway.probe())
        except Exception:
            log.exception("the probe of an MCP server failed")
            faults.append(ServerFault(INFRA, "The worker failed to ask the run's MCP server."))
        finally:
            ended.set()

    run_in_background("probe", ask)
    while not ended.wait(LOOK_SECONDS):
        if stop.reason is not None:
            break
    if stop.reason is not None:
        return Execution(Outcome(FAILED), stop.reason)
    fault = faults[0]
    if fault is None:
        return None
    return Execution(
        Outcome(
            FAILED, fault.fault_class, short_message=fault.sentence, error_message=fault.sentence
        )
    )
