"""A machine may have no room for another thread, as when a run has started very many processes. The worker waits."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from pipedai_worker.api import Api
from pipedai_worker.conformance.fake_api import FakeApi
from pipedai_worker.disk.journal import Journal
from pipedai_worker.executors.base import CommandExecutor
from pipedai_worker.running.loop import Loop, Settings

NAMES = {"poll", "sessions", "run", "heartbeat", "look-up", "events"}


@pytest.mark.parametrize("before", range(5))
def test_a_run_is_done_although_no_thread_starts_for_a_while(
    api: FakeApi, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    start, attempts = threading.Thread.start, iter(range(10**9))

    def refuse_two(thread: threading.Thread) -> None:
        if thread.name.split()[0] in NAMES and next(attempts) in {before, before + 1}:
            raise RuntimeError("can't start new thread")
        start(thread)

    # The look-up of a name takes a thread.
    client = Api(
        url.replace("127.0.0.1", "localhost"), token=api.worker_token, worker_id=api.worker_id
    )
    journal, run = Journal(tmp_path), api.add(record_events="always")
    monkeypatch.setattr(threading.Thread, "start", refuse_two)
    settings = Settings(max_concurrency=1, drain_seconds=0, once=True)
    Loop(client, journal, CommandExecutor(["true"]), settings).run()
    assert next(attempts) > before
    assert (run.status, journal.held(), journal.outcomes()) == ("succeeded", [], {})
    journal.close()
    client.close()
