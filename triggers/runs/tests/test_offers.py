"""Workers of a pool that ask at the same moment are offered different runs, each the oldest that is left."""

from dataclasses import dataclass
from uuid import UUID

import pytest

from pipedai.ids import new_id
from testing.processes.worker_calls import WorkerCalls
from testing.world.cast import Cast
from testing.world.pools import add_pool
from testing.world.runs import Runs
from triggers.runs.handout import Offers


@dataclass
class Pooled:
    """Three workers of a pool, with room for one run each, and the pool's queued runs, the oldest first."""

    workers: list[WorkerCalls]
    queued: list[str]

    def polled(self, worker: int) -> list[str]:
        return [run["id"] for run in self.workers[worker].poll().json()["runs"]]


@pytest.fixture
def pooled(cast: Cast) -> Pooled:
    workers = [cast.worker, cast.register("host-2"), cast.register("host-3")]
    pool_id = add_pool(cast, *(worker.worker_id for worker in workers))
    runs = Runs.of(cast, worker_id=None, pool_id=pool_id)
    queued = [str(runs.queue()) for _ in range(2)]
    return Pooled([WorkerCalls(worker) for worker in workers], queued)


def test_workers_that_poll_at_once_are_offered_different_runs(pooled: Pooled) -> None:
    first, second = pooled.queued
    assert pooled.polled(0) == [first]
    assert pooled.polled(1) == [second]
    # There is no run left that nobody was offered, but the third worker may be faster than the others.
    assert pooled.polled(2) == [first]
    assert pooled.polled(0) == [first]
    assert pooled.workers[1].claim(UUID(second)).status_code == 200
    assert pooled.workers[2].claim(UUID(first)).status_code == 200
    assert pooled.polled(0) == []


def test_a_call_for_the_next_run_leaves_to_others_what_they_were_offered(pooled: Pooled) -> None:
    first, second = pooled.queued
    assert pooled.polled(0) == [first]
    assert pooled.workers[1].claim_next(claimId="mine").json()["run"]["id"] == second
    assert pooled.workers[2].claim_next(claimId="mine").json()["run"]["id"] == first


def test_a_worker_alone_gets_all_runs_in_their_order(pooled: Pooled) -> None:
    for run_id in pooled.queued:
        assert pooled.polled(0) == pooled.polled(0) == [run_id]
        pooled.workers[0].claim(UUID(run_id))
        pooled.workers[0].start(UUID(run_id))
        assert pooled.workers[0].complete(UUID(run_id), status="succeeded").status_code == 200


class TestOffers:
    """What is remembered, with a clock that only the test moves."""

    @pytest.fixture(autouse=True)
    def begin(self) -> None:
        self.seconds = 0.0
        self.offers = Offers(lambda: self.seconds)
        self.one, self.two, self.run_id = new_id(), new_id(), new_id()

    def test_an_offer_counts_for_two_seconds_and_for_the_others_alone(self):
        assert self.offers.add(self.one, [self.run_id], besides=[])
        assert self.offers.to_others(self.one) == []
        self.seconds = 1.9
        assert self.offers.to_others(self.two) == [self.run_id]
        self.seconds = 2.1
        assert self.offers.to_others(self.two) == []

    def test_two_that_choose_the_same_run_at_the_same_moment_do_not_both_get_it(self):
        assert self.offers.add(self.one, [self.run_id], besides=[])
        assert not self.offers.add(self.two, [self.run_id, new_id()], besides=[])
        # This one knows that the run was offered to another.
        assert self.offers.add(self.two, [self.run_id], besides=[self.run_id])
        assert self.offers.to_others(self.two) == [self.run_id]

    def test_who_polls_again_and_again_keeps_no_run_from_the_others(self):
        for tenth in range(300):
            self.seconds = tenth / 10
            theirs = self.offers.to_others(self.one)
            assert self.offers.add(self.one, [self.run_id], besides=theirs)
        assert self.offers.to_others(self.two) == []

    def test_only_so_many_are_remembered(self):
        for _ in range(1_100):
            self.offers.add(self.one, [new_id()], besides=[])
        assert len(self.offers.to_others(self.two)) == 1_000
