"""A worker takes its runs by `claim-next`. The conformance kit has further checks of that."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import pytest

from pipedai_worker.api import ACCOUNT_HEADER, Api
from pipedai_worker.conformance.fake_api import FakeApi, FakeRun
from pipedai_worker.disk import durable
from pipedai_worker.disk.durable import Scratch
from pipedai_worker.disk.journal import UNREADABLE, HeldRun, Journal
from pipedai_worker.disk.sessions import Session
from pipedai_worker.executors.base import CommandExecutor
from pipedai_worker.running.assigned import AssignedRun
from pipedai_worker.running.loop import Granted, InHand, Loop, Polled, Settings
from pipedai_worker.running.reporting import Surroundings

from .conftest import Workers, until


@pytest.fixture
def client(api: FakeApi, url: str) -> Iterator[Api]:
    client = Api(url, token=api.worker_token, worker_id=api.worker_id)
    yield client
    client.close()


class TestTheClaimId:
    def test_it_stays_over_a_restart_until_its_run_is_written_down(self, tmp_path: Path) -> None:
        first = Journal(tmp_path)
        claim_id = first.next_claim_id()
        assert first.next_claim_id() == claim_id
        first.close()
        second = Journal(tmp_path)
        assert second.next_claim_id() == claim_id
        second.drop_next_claim_id()
        assert second.next_claim_id() != claim_id
        second.close()

    def test_it_is_dropped_if_the_worker_was_killed_before_it_could(self, tmp_path: Path) -> None:
        first = Journal(tmp_path)
        claim_id = first.next_claim_id()
        first.hold(HeldRun(FakeRun().id, claim_id))
        first.close()
        second = Journal(tmp_path)
        assert second.next_claim_id() != claim_id
        second.close()

    @pytest.mark.parametrize("content", ["", "[]", "{}", '{"claimId": 5}'])
    def test_a_file_that_can_t_be_read_gives_a_new_one(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "next-claim.json").write_text(content)
        journal = Journal(tmp_path)
        assert len(journal.next_claim_id()) == 32
        journal.close()

    def test_there_is_none_while_runs_can_t_be_written_down(self, tmp_path: Path) -> None:
        journal = Journal(tmp_path)
        claim_id = journal.next_claim_id()
        held = tmp_path / "held"
        held.rmdir()
        for _ in range(2):
            with pytest.raises(OSError):
                journal.hold(HeldRun(FakeRun().id, claim_id))
            with pytest.raises(OSError):
                journal.next_claim_id()
        held.mkdir()
        assert journal.next_claim_id() == claim_id
        journal.close()


def test_a_granted_run_shows_no_secret() -> None:
    state = {"id": FakeRun().id, "prompt": "a secret", "mcpHeaders": {"x-api-key": "a secret"}}
    assert "secret" not in repr(Granted("mine", state, None))


def test_a_run_is_handed_back_even_if_the_disk_fails(
    api: FakeApi, client: Api, tmp_path: Path
) -> None:
    run, journal = api.add(), Journal(tmp_path)
    assert client.claim_next(journal.next_claim_id(), 0) is not None
    (tmp_path / "outcomes").rmdir()
    told: list[str] = []
    ended = threading.Event()
    around = Surroundings(
        *(client, journal, cast("Any", None), (), None, lambda _: False),
        *(lambda _: told.append(run.status), lambda _: None),
    )
    in_hand = InHand(around, lambda end: end(), lambda *_: ended.set())
    in_hand.hand_back(run.id, UNREADABLE)
    assert ended.wait(60)
    assert (run.status, told, in_hand.settling) == ("failed", ["running"], 0)
    journal.close()


class TestTheCall:
    def test_it_tells_the_account_and_learns_what_a_poll_learns(
        self, api: FakeApi, client: Api
    ) -> None:
        run = api.add()
        answer = client.claim_next("mine", 0, "an-account")
        assert answer is not None
        assert (answer["id"], answer["status"]) == (run.id, "running")
        assert api.headers[-1][ACCOUNT_HEADER] == "an-account"
        assert api.calls[-1][2] == {"claimId": "mine", "start": True, "wait": 0}
        assert client.auth_mode == "claude_max"
        assert client.clock_offset is not None


def test_an_outcome_that_is_just_reported_does_not_end_a_worker_that_is_granted_another_run(
    api: FakeApi, client: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, journal = api.add(), Journal(tmp_path)
    answer = client.claim_next(journal.next_claim_id(), 0)
    assert answer is not None
    journal.put_outcome(FakeRun().id, {"status": "succeeded"})
    read = durable.read_json_object

    def reported_meanwhile(path: Path) -> dict[str, Any]:
        path.unlink()
        return read(path)

    monkeypatch.setattr(durable, "read_json_object", reported_meanwhile)
    settings = Settings(max_concurrency=None, drain_seconds=0, once=False)
    loop = Loop(client, journal, CommandExecutor(["true"]), settings)
    loop._draining.set()
    loop._take_granted(Granted("mine", answer, AssignedRun.parse(answer)))
    assert api.until_ended(run)["status"] == "failed"
    until(lambda: not journal.has_outcome(run.id))
    journal.close()


class Slow(CommandExecutor):
    """Takes as long as the test wants to remove what a session left."""

    def __init__(self) -> None:
        super().__init__(["true"])
        self.begun, self.may_end = threading.Event(), threading.Event()

    def clean_up(self, *_: object, **__: object) -> None:
        self.begun.set()
        self.may_end.wait(60)


def test_the_loop_goes_on_while_what_a_session_left_is_removed(
    api: FakeApi, client: Api, tmp_path: Path
) -> None:
    journal, slow = Journal(tmp_path), Slow()
    scratch = Scratch()
    session = Session(FakeRun().id, FakeRun().id, str(scratch.root), in_use=False, waits=True)
    durable.write_json(tmp_path / "sessions" / f"{session.id}.json", asdict(session))
    loop = Loop(client, journal, slow, Settings(max_concurrency=None, drain_seconds=0, once=False))
    released = threading.Timer(5, slow.may_end.set)
    released.start()
    loop._step()
    client.limited_seconds, client.ended_runs = 60.0, [session.run_id]
    loop._take(Polled(None, 0.0))
    loop._step()
    assert slow.begun.wait(20)
    # Another run begins meanwhile.
    other = replace(session, id=str(uuid4()), run_id=str(uuid4()), root="", waits=False)
    journal.sessions.begin(other)
    journal.sessions.undefer(other.id)
    assert journal.sessions.take(session.id, "another run", lambda: True) is None
    assert not slow.may_end.is_set()
    released.cancel()
    journal.sessions.forget(other.id, CommandExecutor(["true"]))
    slow.may_end.set()
    until(lambda: not scratch.root.exists() and not journal.sessions.all())
    journal.close()


class TestTheWorker:
    def test_a_run_costs_three_calls(self, api: FakeApi, workers: Workers) -> None:
        runs = [api.add(), api.add()]
        workers.start()
        for run in runs:
            assert api.until_ended(run)["status"] == "succeeded"
        assert {kind for kind, _, _ in api.calls} <= {
            "claim-next",
            "heartbeat",
            "complete",
            "whoami",
        }
        until(lambda: workers.files("outcomes") == workers.files("held") == [])

    def test_a_run_that_it_can_t_read_is_handed_back_and_the_next_is_done(
        self, api: FakeApi, workers: Workers
    ) -> None:
        unreadable, readable = api.add(max_cost_usd="many"), api.add()
        worker = workers.start()
        outcome = api.until_ended(unreadable)
        assert (outcome["status"], outcome["faultClass"]) == ("failed", "infra")
        assert outcome["errorMessage"] == "The worker can't read this run."
        assert api.until_ended(readable)["status"] == "succeeded"
        assert "can't be read" in worker.log
        assert unreadable.claim_id != readable.claim_id
        # It is asked for, and reported, once only.
        asked = [body["claimId"] for kind, _, body in api.calls if kind == "claim-next"]
        assert asked.count(unreadable.claim_id or "") == 1
        assert api.count("complete", unreadable) == 1

    def test_a_disk_that_fails_hands_the_run_back(self, api: FakeApi, workers: Workers) -> None:
        worker = workers.start()
        api.until(lambda: api.polls_waiting)
        held = workers.state / "held"
        held.rmdir()
        outcome = api.until_ended(api.add())
        assert (outcome["status"], outcome["faultClass"]) == ("failed", "infra")
        assert "disk failed" in outcome["errorMessage"]
        assert outcome["costUsd"] == "0.000000"
        # The worker takes no other run from the queue, only to hand it back too.
        later = api.add()
        worker.until_logged("the worker's files can't be written")
        assert later.status == "queued"
        held.mkdir()
        assert api.until_ended(later)["status"] == "succeeded"

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
    def test_a_worker_that_ends_ends_its_waiting_call(
        self, api: FakeApi, workers: Workers, number: int
    ) -> None:
        worker = workers.start()
        api.until(lambda: api.polls_waiting)
        worker.process.send_signal(number)
        assert worker.wait(15) == 0
        assert api.count("poll") == 1
        later = api.add()
        assert later.status == "queued"

    def test_a_run_that_is_granted_while_it_ends_is_handed_back(
        self, api: FakeApi, workers: Workers
    ) -> None:
        worker = workers.start()
        api.until(lambda: api.polls_waiting)
        api.latency = 1.0
        run = api.add()
        api.until(lambda: run.status == "running")
        worker.process.send_signal(signal.SIGTERM)
        api.latency = 0.0
        assert worker.wait() == 0
        assert "came too late" in worker.log
        outcome = run.outcome or {}
        assert (outcome["status"], outcome["faultClass"]) == ("failed", "infra")
        # The API has started the run: without these it would count what was reserved, and fear effects.
        assert outcome["toolCalls"] == {"total": 0, "effects": 0, "unknown": 0}
        assert outcome["costUsd"] == "0.000000"

    def test_once_takes_what_is_due_and_ends(self, api: FakeApi, workers: Workers) -> None:
        api.capacity = 2
        runs = [api.add(), api.add()]
        assert workers.start("--once").wait() == 0
        assert [run.status for run in runs] == ["succeeded", "succeeded"]
        assert api.count("claim-next") == 3
