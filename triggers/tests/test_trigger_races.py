"""A trigger is changed while its tick fires, while it is run, or while one of its runs is handed out."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import transaction

from audit.models import AuditEntry
from pipedai.api.errors import ApiError, Conflict
from pipedai.events import SYSTEM
from testing.processes.racing import ROUNDS, Started, accepted, at_once
from testing.world.cast import Cast
from testing.world.runs import allow
from triggers.models import Run, Tick, Trigger
from triggers.runs.handout import hand_out_runs
from triggers.runs.queueing import run_trigger
from triggers.schedules.firing import fire_due_ticks
from triggers.services import TRIGGERS, rotate_mcp_token
from triggers.states import Source
from workspaces.locks import lock_environment

NOON = datetime(2100, 5, 4, 12, tzinfo=UTC)
OLD = ("https://old.example/mcp", {"authorization": "Bearer the-old-planted-one"})
NEW = ("https://new.example/mcp", {"authorization": "Bearer the-new-planted-one"})


@pytest.fixture
def cast(committed_cast: Cast) -> Cast:
    """Returns the cast with one trigger, which is due at noon and has secret headers."""
    allow(committed_cast.worker.worker_id, 9)
    Trigger.objects.update(deleted_at=NOON, next_run_at=None)
    committed_cast.trigger_id = committed_cast.add_trigger(
        schedule="0 * * * *", mcp_url=OLD[0], mcp_headers=OLD[1]
    )
    Trigger.objects.filter(id=committed_cast.trigger_id).update(next_run_at=NOON)
    return committed_cast


@pytest.fixture
def heir(cast: Cast) -> UUID:
    """Registers another worker and returns its id."""
    return cast.register("heir").worker_id


def fire() -> int:
    return fire_due_ticks(now=NOON)


def run_of(trigger_id: UUID) -> UUID:
    queued = run_trigger(
        trigger_id=trigger_id,
        caller_id=uuid4(),
        key=None,
        payload=None,
        source=Source.MANUAL,
        actor=SYSTEM,
    )
    run_id: UUID = queued.run["id"]
    return run_id


def change(cast: Cast, **values: Any) -> Callable[[], None]:
    return partial(TRIGGERS.update, cast.trigger_id, values=values, actor=SYSTEM)


def the_trigger(cast: Cast) -> Trigger:
    return Trigger.objects.select_related("revision").get(id=cast.trigger_id)


def decisions() -> list[str]:
    return [tick.decision for tick in Tick.objects.all()]


def told(action: str) -> int:
    return AuditEntry.objects.filter(action=action).count()


@pytest.mark.parametrize("round_", ROUNDS)
class TestAgainstItsTick:
    def test_a_disabled_one_fires_before_or_never(self, cast: Cast, round_: int) -> None:
        accepted(at_once(change(cast, enabled=False), fire))
        assert fire() == 0
        trigger = the_trigger(cast)
        assert (trigger.enabled, trigger.next_run_at) == (False, None)
        assert Run.objects.count() == len(decisions()) == told("run.scheduled")
        assert decisions() in ([], ["fired"])

    def test_a_reassigned_one_leaves_no_run_with_its_old_worker(
        self, cast: Cast, heir: UUID, round_: int
    ) -> None:
        accepted(at_once(change(cast, worker_id=heir), fire))
        fire()  # the first call may have skipped the trigger while it was locked, so its tick may still be due
        assert decisions() == ["fired"]
        assert Run.objects.get().worker_id == heir

    def test_one_that_loses_its_worker_waits_or_skips(self, cast: Cast, round_: int) -> None:
        accepted(at_once(change(cast, worker_id=None), fire))
        fire()
        (decision,) = decisions()
        workers: list[UUID | None] = list(Run.objects.values_list("worker_id", flat=True))
        assert workers == {"fired": [None], "skipped_no_worker": []}[decision]

    def test_a_deleted_one_fires_before_or_never(self, cast: Cast, round_: int) -> None:
        deleted, _ = at_once(partial(TRIGGERS.delete, cast.trigger_id, actor=SYSTEM), fire)
        fire()
        assert Run.objects.count() == isinstance(deleted, Conflict)
        assert (the_trigger(cast).deleted_at is None) is isinstance(deleted, Conflict)

    def test_a_new_schedule_does_not_bring_the_old_ones_tick_back(
        self, cast: Cast, round_: int
    ) -> None:
        accepted(at_once(change(cast, schedule="30 3 * * *"), fire))
        trigger = the_trigger(cast)
        assert trigger.next_run_at is not None
        assert (trigger.next_run_at.hour, trigger.next_run_at.minute) == (3, 30)
        # If the change came first, the new schedule has missed its ticks of the years before NOON, and nothing fires.
        fired = Tick.objects.filter(decision="fired").values_list("tick_at", flat=True)
        assert list(fired) in ([], [NOON])
        assert Run.objects.count() == len(fired)

    def test_a_run_has_the_prompt_of_one_revision_and_its_model(
        self, cast: Cast, round_: int
    ) -> None:
        accepted(at_once(change(cast, prompt="New.", model="new-model"), fire))
        fire()
        run = Run.objects.select_related("revision").get()
        assert run.model == run.revision.model
        assert (run.revision.prompt == "New.") is (run.model == "new-model")

    def test_new_headers_and_url_keep_no_tick_from_firing(self, cast: Cast, round_: int) -> None:
        accepted(at_once(change(cast, mcp_url=NEW[0], mcp_headers=NEW[1]), fire))
        fire()
        assert decisions() == ["fired"]
        assert pairs_handed_out(cast) == [NEW]


@pytest.mark.parametrize("round_", ROUNDS)
class TestAgainstItsRun:
    def test_a_disabled_one_is_run_before_or_refused(self, cast: Cast, round_: int) -> None:
        queued, changed = at_once(partial(run_of, cast.trigger_id), change(cast, enabled=False))
        assert changed is None
        assert Run.objects.count() == (not isinstance(queued, ApiError)) == told("run.created")
        with pytest.raises(Conflict):
            run_of(cast.trigger_id)

    def test_a_reassigned_ones_run_is_its_new_workers(
        self, cast: Cast, heir: UUID, round_: int
    ) -> None:
        queue = partial(run_of, cast.trigger_id)
        accepted(at_once(queue, change(cast, worker_id=heir), queue))
        assert list(Run.objects.values_list("worker_id", flat=True)) == [heir, heir]

    def test_one_that_loses_its_worker_keeps_its_run_waiting_or_refuses_it(
        self, cast: Cast, round_: int
    ) -> None:
        queued, changed = at_once(partial(run_of, cast.trigger_id), change(cast, worker_id=None))
        assert changed is None
        expected = [] if isinstance(queued, Conflict) else [None]
        assert list(Run.objects.values_list("worker_id", flat=True)) == expected

    def test_a_run_has_the_prompt_of_one_revision_and_its_model(
        self, cast: Cast, round_: int
    ) -> None:
        queue = partial(run_of, cast.trigger_id)
        accepted(at_once(queue, change(cast, prompt="New.", model="new-model"), queue))
        for run in Run.objects.select_related("revision"):
            assert run.model == run.revision.model
            assert (run.revision.prompt == "New.") is (run.model == "new-model")


def pairs_handed_out(cast: Cast) -> list[tuple[str, dict[str, str]]]:
    """Hands out the runs, and returns the URL and the headers of each."""
    runs = hand_out_runs(
        worker_id=cast.worker.worker_id, capacity=9, approved=True, actor=SYSTEM, now=NOON
    )
    return [(run.row["mcp_url"], run.mcp_headers) for run in runs]


@pytest.mark.parametrize("round_", ROUNDS)
class TestAgainstAHandOut:
    def test_headers_go_only_to_the_server_that_they_were_given_for(
        self, cast: Cast, round_: int
    ) -> None:
        run_of(cast.trigger_id)
        ask = partial(pairs_handed_out, cast)
        both = change(cast, mcp_url=NEW[0], mcp_headers=NEW[1])
        for answer in accepted(at_once(ask, both, ask, ask)):
            assert answer in (None, [OLD], [NEW])
        assert ask() == [NEW]

    def test_another_server_gets_no_headers_at_all(self, cast: Cast, round_: int) -> None:
        run_of(cast.trigger_id)
        ask = partial(pairs_handed_out, cast)
        for answer in accepted(at_once(ask, change(cast, mcp_url=NEW[0]), ask)):
            assert answer in (None, [OLD], [(NEW[0], {})])
        assert ask() == [(NEW[0], {})]

    def test_a_rotation_and_a_move_to_another_server_never_mix(
        self, cast: Cast, round_: int
    ) -> None:
        """The second call sees what the first did: the new URL gets the rotated headers or none."""
        run_of(cast.trigger_id)
        rotate = partial(
            rotate_mcp_token, trigger_id=cast.trigger_id, mcp_headers=NEW[1], actor=SYSTEM
        )
        accepted(at_once(rotate, change(cast, mcp_url=NEW[0])))
        assert pairs_handed_out(cast) in ([NEW], [(NEW[0], {})])


def test_only_near_the_ceiling_does_a_request_wait_for_the_environment(
    cast: Cast, ceilings: dict[str, int]
) -> None:
    with transaction.atomic():
        lock_environment(cast.environment.id)
        ceilings["queuedRuns"] = 1_002
        accepted(at_once(partial(run_of, cast.trigger_id)))
        ceilings["queuedRuns"] = 1_000
        waiting = Started(partial(run_of, cast.trigger_id))
        waiting.wait_until_blocked()
    assert isinstance(waiting.answer(), UUID)


def test_whoever_waited_for_a_trigger_does_not_lock_its_environment(
    cast: Cast, ceilings: dict[str, int]
) -> None:
    """A caller that holds the trigger's lock must not wait for the environment's lock: the locks would be taken in
    the wrong order, and another caller may hold the environment and wait for the trigger.
    """
    # The first two runs are so far below the ceiling that they do not lock the environment.
    ceilings["queuedRuns"] = 1_004
    other, done = cast.add_trigger(), threading.Event()

    def hold() -> bool:
        with transaction.atomic():
            lock_environment(cast.environment.id)
            held.set()
            return done.wait(20)

    with transaction.atomic():
        change(cast, enabled=False)()
        waiting = Started(partial(run_of, cast.trigger_id))
        waiting.wait_until_blocked()
        run_of(other), run_of(other)
        held = threading.Event()
        holder = Started(hold)
        assert held.wait(60)
    refused = waiting.answer()
    done.set()
    assert holder.answer() is True, "it waited for the environment"
    assert isinstance(refused, Conflict)
    assert refused.message == "The trigger is paused."


@pytest.mark.parametrize("round_", ROUNDS)
class TestTheLastPlacesInTheQueue:
    @pytest.mark.parametrize("limit", [1, 3])
    def test_go_to_as_many_as_there_are(
        self, cast: Cast, ceilings: dict[str, int], limit: int, round_: int
    ) -> None:
        ceilings["queuedRuns"] = limit
        other = cast.add_trigger()
        calls = [partial(run_of, trigger) for trigger in (cast.trigger_id, other)]
        answers = at_once(*calls * 3)
        refused = [answer for answer in answers if isinstance(answer, Conflict)]
        assert len(refused) == len(answers) - limit
        assert {refusal.message for refusal in refused} == {
            f"The environment has {limit} queued runs, as many as it may."
        }
        assert Run.objects.filter(status="queued").count() == limit

    def test_are_not_taken_from_a_schedule(
        self, cast: Cast, ceilings: dict[str, int], round_: int
    ) -> None:
        ceilings["queuedRuns"] = 1
        queued, fired = at_once(partial(run_of, cast.trigger_id), fire)
        assert fired in (0, 1)  # 0 if the trigger was locked, so that the scheduler skipped it
        fire()
        assert Run.objects.filter(source="schedule").count() == 1
        assert Run.objects.filter(source="manual").count() == (not isinstance(queued, Conflict))
