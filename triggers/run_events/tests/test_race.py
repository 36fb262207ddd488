"""Two senders at once store each event once, and count exactly."""

import pytest
from django.db import transaction

from pipedai.api.tokens import digest
from testing.processes.racing import ROUNDS, Started, accepted, at_once
from testing.world.runs import Runs, allow
from triggers.models import RunEventDay, RunEventLog
from triggers.run_events.reading import page_of_events
from triggers.run_events.recording import append_events, make_event, store_events

AT = "2026-05-04T12:00:00.000Z"


def events(*seqs):
    return [make_event(seq, at=AT, type_="text", text="same", data=None) for seq in seqs]


def sender(cast, run, *seqs):
    """Returns a function that stores events as the endpoint does, and returns the next number."""
    worker, sent = cast.worker, events(*seqs)

    def send():
        appended = append_events(
            token_digest=digest(worker.worker_token),
            worker_id=worker.worker_id,
            version=None,
            run_id=run,
            events=sent,
        )
        if appended:
            return sent[-1].seq + 1
        return store_events(worker_id=worker.worker_id, run_id=run, events=sent)

    return send


@pytest.fixture
def runs(committed_cast):
    return Runs.of(committed_cast, record_events="always")


def seqs(run):
    return [each.seq for each in page_of_events(run, after=0, limit=1000, most_bytes=2**30).events]


@pytest.mark.parametrize("_", ROUNDS)
def test_senders_of_the_same_events_store_them_once(committed_cast, runs, _):
    run = runs.running()
    same = [sender(committed_cast, run, *range(1, 6)) for _ in range(4)]
    assert accepted(at_once(*same)) == [6] * 4
    assert seqs(run) == [1, 2, 3, 4, 5]
    size = sum(event.size for event in events(1, 2, 3, 4, 5))
    assert (RunEventLog.objects.get().bytes, RunEventDay.objects.get().bytes) == (size, size)


@pytest.mark.parametrize("_", ROUNDS)
def test_senders_of_further_events_store_them_once(committed_cast, runs, _):
    run = runs.running()
    sender(committed_cast, run, 1)()
    same = [sender(committed_cast, run, 2, 3) for _ in range(4)]
    assert accepted(at_once(*same)) == [4] * 4
    assert seqs(run) == [1, 2, 3]
    size = sum(event.size for event in events(1, 2, 3))
    assert (RunEventLog.objects.get().bytes, RunEventDay.objects.get().bytes) == (size, size)


@pytest.mark.parametrize("_", ROUNDS)
def test_the_bytes_of_runs_at_once_are_counted_exactly(committed_cast, runs, _, monkeypatch):
    allow(committed_cast.worker.worker_id, 4)
    size = sum(event.size for event in events(1, 2))
    monkeypatch.setattr("triggers.run_events.recording.MAX_DAY_BYTES", 2 * size)
    ids = [runs.running() for _ in range(4)]
    # As if each run were streamed: then the first events are stored by one statement too.
    RunEventLog.objects.bulk_create(
        RunEventLog(run_id=run, environment=committed_cast.environment) for run in ids
    )
    accepted(at_once(*(sender(committed_cast, run, 1, 2) for run in ids)))
    whole = [run for run in ids if seqs(run) == [1, 2]]
    assert len(whole) == 2
    assert sorted(RunEventLog.objects.values_list("stored", "is_truncated")) == [
        (1, True),
        (1, True),
        (2, False),
        (2, False),
    ]


def test_a_second_sender_waits_and_goes_on_behind_the_first(committed_cast, runs):
    run = runs.running()
    sender(committed_cast, run, 1)()
    with transaction.atomic():
        sender(committed_cast, run, 2)()
        second = Started(sender(committed_cast, run, 2, 3))
        second.wait_until_blocked()
    assert second.answer() == 4
    assert seqs(run) == [1, 2, 3]
