"""No more runs of a trigger are held at once than its `maxConcurrentRuns` allows."""

import pytest
from django.db import IntegrityError

from pipedai.api.errors import Conflict
from testing.world.cast import TEST_ACTOR, Cast
from testing.world.runs import Runs, allow
from triggers.models import Run
from triggers.services import TRIGGERS


@pytest.fixture
def limited(cast: Cast) -> Runs:
    allow(cast.worker.worker_id, 9)
    return Runs.of(cast, max_concurrent_runs=2)


def test_a_third_run_waits_until_a_place_is_free(limited: Runs) -> None:
    first, second, third = (limited.queue() for _ in range(3))
    assert limited.polled() == [first, second]
    limited.claim(first)
    limited.claim(second)
    assert limited.polled() == []
    with pytest.raises(Conflict) as full:
        limited.claim(third)
    assert full.value.code == "trigger_full"
    limited.complete(first)
    assert limited.polled() == [third]
    limited.claim(third)
    assert set(Run.objects.filter(slot__isnull=False).values_list("trigger_slot", flat=True)) == {
        1,
        2,
    }


def test_a_full_trigger_does_not_hold_up_others(limited: Runs) -> None:
    limited.claimed()
    limited.claimed()
    limited.queue()
    other = limited.queue(trigger_id=limited.cast.trigger_id)
    assert limited.polled() == [other]


def test_a_repeated_claim_gets_its_run_although_the_trigger_is_full(limited: Runs) -> None:
    first = limited.claimed(claim_id="a")
    limited.claimed()
    assert limited.claim(first, "a")["id"] == first


def test_a_lost_run_frees_its_place(limited: Runs) -> None:
    limited.claimed()
    limited.lost(limited.running())
    limited.wait(minutes=10)
    assert len(limited.polled()) == 2 - Run.objects.filter(trigger_slot__isnull=False).count()


def test_a_new_limit_counts_the_runs_that_are_held_already(cast: Cast) -> None:
    runs = Runs.of(cast)
    allow(cast.worker.worker_id, 9)
    for _ in range(3):
        runs.claimed()
    waiting = runs.queue()
    TRIGGERS.update(runs.trigger_id, values={"max_concurrent_runs": 3}, actor=TEST_ACTOR)
    assert runs.polled() == []
    with pytest.raises(Conflict):
        runs.claim(waiting)


def test_a_limit_that_was_lifted_and_set_again_numbers_the_held_runs_anew(limited: Runs) -> None:
    first, second = limited.claimed(), limited.claimed()
    for limit in (None, 5, None):
        values = {"max_concurrent_runs": limit}
        TRIGGERS.update(limited.trigger_id, values=values, actor=TEST_ACTOR)
    limited.complete(first)
    third = limited.claimed()
    TRIGGERS.update(limited.trigger_id, values={"max_concurrent_runs": 5}, actor=TEST_ACTOR)
    assert {limited.stored(run_id)["trigger_slot"] for run_id in (second, third)} == {1, 2}


def test_the_database_itself_refuses_a_place_twice(limited: Runs) -> None:
    first, second = limited.claimed(), limited.claimed()
    place = limited.stored(first)["trigger_slot"]
    with pytest.raises(IntegrityError):
        Run.objects.filter(id=second).update(trigger_slot=place)
