"""Makes jobs for tests of the executors, which then need no worker."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from pipedai_worker.conformance.fake_api import FakeRun
from pipedai_worker.disk import journal
from pipedai_worker.disk.durable import write_private
from pipedai_worker.disk.sessions import session_of
from pipedai_worker.executors import claude
from pipedai_worker.executors.base import Job, JobSession
from pipedai_worker.redact import Redactor
from pipedai_worker.running.assigned import AssignedRun
from pipedai_worker.running.process import Program
from pipedai_worker.running.stopping import StopReason

# The id is random, so that only processes of this test process are marked with it: they are killed.
CLAIM_ID = uuid4().hex
MCP_URL = "http://127.0.0.1:7/unguessable/mcp"


def make_job(
    directory: Path,
    prompt: str = "Say hello.",
    *,
    should_stop: Callable[[], StopReason | None] = lambda: None,
    term_grace: float = 1.0,
    launched: Callable[[Program], None] = lambda _: None,
    on_event: Callable[[str, Any], None] = lambda _type, _payload: None,
    session: JobSession | None = None,
    **fields: Any,
) -> Job:
    """Make a job in `directory`, as a worker would."""
    run = AssignedRun.parse(FakeRun(prompt, **fields).handed_out())
    assert run is not None
    work = directory / "work"
    work.mkdir()
    files, temporary = directory / "files", directory / "tmp"
    files.mkdir()
    temporary.mkdir(exist_ok=True)
    mcp_config = directory / "mcp.json"
    write_private(mcp_config, claude.mcp_configuration(MCP_URL, run.timeout_seconds))
    return Job(
        run=run,
        directory=work,
        mcp_config=mcp_config,
        mcp_url=MCP_URL,
        files=files,
        session=session or JobSession(session_of(CLAIM_ID)),
        environment={
            "PATH": os.environ["PATH"],
            "TMPDIR": str(temporary),
            journal.CLAIM_VARIABLE: CLAIM_ID,
        },
        redactor=Redactor(run.mcp_headers.values()),
        should_stop=should_stop,
        term_grace=lambda: term_grace,
        launched=launched,
        session_begun=lambda: None,
        on_event=on_event,
    )


class StopOnce:
    """Asks for a stop as soon as the program has written so many events of this type."""

    def __init__(self, kind: str, reason: StopReason, *, times: int = 1) -> None:
        self._kind = kind
        self._reason = reason
        self._left = times

    def take(self, kind: str, _payload: Any) -> None:
        self._left -= kind == self._kind

    def should_stop(self) -> StopReason | None:
        return None if self._left > 0 else self._reason
