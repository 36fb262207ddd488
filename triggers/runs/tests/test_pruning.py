"""Old rows are removed from the ledger, except those that are still needed."""

from datetime import timedelta
from uuid import UUID

import pytest
from django.db import transaction

from audit.models import AuditEntry
from pipedai import retention
from pipedai.api.errors import NotFound
from pipedai.retention import Order, Rounds
from pipedai.sql import execute
from testing.processes.racing import Started, accepted, at_once
from testing.world.cases import cases
from testing.world.cast import TEST_ACTOR, Cast
from testing.world.old_runs import add_old_runs
from testing.world.runs import NOON, Runs
from triggers.models import Delivery, DeliveryAttempt, IdempotencyKey, Run, RunResult, RunText, Tick
from triggers.pruning import prune_deliveries, prune_runs
from triggers.ready import prune_idempotency_keys
from triggers.runs.queueing import run_trigger
from triggers.states import Decision, Source
from triggers.webhooks import sending

LATER = NOON + timedelta(days=30)


@pytest.fixture
def runs(cast: Cast) -> Runs:
    return Runs.of(cast, webhook_url=None)


def prune(before=LATER, *, limit=100, dry_run=False, what=prune_runs):
    return sum(batch.removed for batch in what(Order(before, limit, dry_run)))


def there():
    return set(Run.objects.values_list("id", flat=True))


def pruned_rows():
    rows = AuditEntry.objects.filter(action="runs.pruned").order_by("created_at", "id")
    return [row.metadata for row in rows]


def test_a_run_goes_with_its_text_and_one_that_is_younger_stays(runs):
    runs.ended(payload={"a": 1}, errorMessage="x", output=None)
    runs.wait(days=1)
    younger = runs.ended()

    assert prune(NOON + timedelta(hours=1)) == 1

    assert there() == {younger}
    assert set(RunText.objects.values_list("run_id", flat=True)) <= {younger}
    assert not RunResult.objects.exists()


@cases("state", ["queue", "claimed", "running"], undone=True)
def test_an_unfinished_run_stays_however_old_it_is(runs, state):
    run_id = getattr(runs, state)()
    assert prune() == 0
    assert there() == {run_id}
    assert pruned_rows() == []


class TestARunWithARetry:
    def test_stays_while_the_retry_is_unfinished(self, runs):
        lost = runs.lost()
        assert prune() == 0
        assert there() == {lost, runs.retry_of(lost)["id"]}

    def test_stays_while_the_retry_is_young(self, runs):
        first = runs.lost()
        retry = runs.claimed_retry_of(first)
        runs.wait(seconds=100)
        runs.complete(retry, "failed")
        assert prune(runs.now - timedelta(seconds=1)) == 0
        assert there() == {first, retry}

    @cases("limit", [1, 2, 100], undone=True)
    def test_goes_with_all_of_them_in_one_batch(self, runs, limit):
        first = runs.lost()
        second = runs.lost(runs.claimed_retry_of(first))
        runs.complete(runs.claimed_retry_of(second), "succeeded")
        assert prune(limit=limit) == 3
        assert there() == set()
        assert [row["runs"] for row in pruned_rows()] == [3]

    def test_stays_while_one_of_them_has_a_webhook_to_deliver(self, cast):
        runs = Runs.of(cast)
        first = runs.lost()
        runs.complete(runs.claimed_retry_of(first), "succeeded")
        Delivery.objects.exclude(run_id=first).update(
            status="delivered", next_attempt_at=None, delivered_at=NOON
        )
        assert prune() == 0
        Delivery.objects.update(status="dead", next_attempt_at=None, delivered_at=None)
        assert prune() == 2
        assert there() == set()


def test_a_run_goes_with_its_deliveries_and_their_attempts(cast):
    runs = Runs.of(cast)
    runs.ended()
    delivery = Delivery.objects.get()
    DeliveryAttempt.objects.create(
        delivery=delivery, environment_id=delivery.environment_id, n=1, at=NOON, status_code=500,
        duration_ms=1,
    )  # fmt: skip
    assert prune() == 0
    Delivery.objects.update(status="dead", next_attempt_at=None)
    assert prune() == 1
    assert (Delivery.objects.count(), DeliveryAttempt.objects.count()) == (0, 0)
    (row,) = pruned_rows()
    assert row == {"before": "2026-06-03T12:00:00.000Z", "runs": 1, "ticks": 0, "deliveries": 1}


def test_a_run_goes_with_its_tick_and_skipped_ticks_by_the_age_of_their_last(runs):
    run_id = runs.ended()
    trigger = {"environment_id": runs.cast.environment.id, "trigger_id": runs.trigger_id}
    Tick.objects.create(
        **trigger, tick_at=NOON, last_tick_at=NOON, decision=Decision.FIRED, run_id=run_id
    )
    for moment in (NOON + timedelta(days=1), LATER):
        Tick.objects.create(
            **trigger, tick_at=moment, last_tick_at=moment, decision=Decision.SKIPPED_OVERLAP
        )
    stretch = Tick.objects.create(
        **trigger,
        tick_at=NOON + timedelta(days=2),
        last_tick_at=LATER,
        decision=Decision.SKIPPED_PAUSED,
        missed_count=9,
    )
    assert prune() == 2  # a run and a skipped tick
    assert {tick.tick_at for tick in Tick.objects.all()} == {stretch.tick_at, LATER}
    assert [(row.get("runs"), row["ticks"]) for row in pruned_rows()] == [(1, 1), (None, 1)]


def test_a_run_goes_with_the_key_that_remembers_it(runs):
    queued = run_trigger(
        trigger_id=runs.trigger_id, caller_id=UUID(int=1), key="once", payload=None,
        source=Source.API, actor=TEST_ACTOR,
    )  # fmt: skip
    run_id = queued.run["id"]
    Run.objects.filter(id=run_id).update(
        status="canceled", ended_at=NOON, ended_by="user", fault_class="none"
    )
    assert prune() == 1
    assert not IdempotencyKey.objects.exists()


@cases("limit", [1, 3, 1000], undone=True)
def test_any_size_of_batch_comes_to_the_same_end(runs, limit):
    add_old_runs(runs.trigger_id, 40, NOON)
    pending = Delivery.objects.order_by("id")[0]
    Delivery.objects.filter(id=pending.id).update(
        status="pending", next_attempt_at=NOON, delivered_at=None
    )
    assert pending.run_id is not None
    keeps = Run.objects.filter(id=pending.run_id) | Run.objects.filter(retry_of=pending.run_id)
    keeps = keeps | Run.objects.filter(id__in=keeps.values("retry_of"))
    stays = set(keeps.values_list("id", flat=True))
    count = Run.objects.count() - len(stays)

    assert prune(limit=limit, dry_run=True) == count
    assert len(there()) == 40
    assert prune(limit=limit) == count
    assert there() == stays
    assert sum(row["runs"] for row in pruned_rows()) == count


def test_a_test_of_a_webhook_goes_by_its_own_age(cast):
    runs = Runs.of(cast)
    runs.wait(days=60)
    young = runs.ended()
    sending.send_test(trigger_id=runs.trigger_id, actor=TEST_ACTOR)
    Delivery.objects.update(status="dead", next_attempt_at=None, created_at=NOON)
    assert prune() == 1
    assert Delivery.objects.get().run_id == young


def test_deliveries_alone_go_by_their_own_retention(cast):
    runs = Runs.of(cast)
    over, waiting = runs.ended(), runs.ended()
    Delivery.objects.update(created_at=NOON)
    Delivery.objects.filter(run_id=over).update(
        status="delivered", next_attempt_at=None, delivered_at=NOON
    )
    assert prune(what=prune_deliveries, dry_run=True) == 1
    assert prune(what=prune_deliveries) == 1
    assert Delivery.objects.get().run_id == waiting
    assert there() == {over, waiting}


def test_keys_that_no_longer_count_are_forgotten_without_an_audit_row(runs):
    run_id = runs.queue()
    for number in range(5):
        IdempotencyKey.objects.create(
            trigger_id=runs.trigger_id, caller_id=UUID(int=1), key=str(number), run_id=run_id,
            environment_id=runs.cast.environment.id, body_digest=b"",
        )  # fmt: skip
    IdempotencyKey.objects.filter(key__in="123").update(created_at=NOON)
    assert prune(what=prune_idempotency_keys, dry_run=True) == 3
    assert prune(what=prune_idempotency_keys, limit=2) == 3
    assert set(IdempotencyKey.objects.values_list("key", flat=True)) == {"0", "4"}
    assert pruned_rows() == []


class TestTheScheduler:
    @pytest.fixture(autouse=True)
    def _long_turns(self, monkeypatch):
        """Lets no turn end early, because that counts as a unit."""
        monkeypatch.setattr(retention, "_TURN_SECONDS", 600)

    def test_removes_no_run_unless_the_operator_has_set_a_retention(self, runs):
        run_id = runs.ended()
        rounds = Rounds()
        assert self.whole_round(rounds) == 0
        assert there() == {run_id}

    def test_removes_those_older_than_it_round_by_round(self, runs, settings):
        settings.RUN_RETENTION_DAYS = 30
        rounds = Rounds()
        for _ in range(2):
            add_old_runs(runs.trigger_id, 5, NOON)
            assert self.whole_round(rounds) == 5
            assert there() == set()

    def test_lets_others_have_their_turns_while_it_finds_nothing(self, runs, settings, monkeypatch):
        monkeypatch.setattr(retention, "_TURN_SECONDS", -1)
        settings.RUN_RETENTION_DAYS = 30
        assert self.whole_round(Rounds()) > 2  # of two environments
        add_old_runs(runs.trigger_id, 5, NOON)
        assert self.whole_round(Rounds()) > 5
        assert there() == set()

    def test_a_kind_that_somebody_holds_delays_no_other_kind(self, cast, monkeypatch):
        def held(_):
            raise retention.InUse

        def free(_):
            return iter([retention.Batch(7, 7)])

        kinds = [
            retention.Retention(name, name, lambda: 1, each)
            for name, each in (("held", held), ("free", free))
        ]
        monkeypatch.setattr(retention, "_registered", {kind.kind: kind for kind in kinds})
        rounds = Rounds()
        with pytest.raises(retention.InUse):
            rounds.work()
        assert self.whole_round(rounds) == 7

    @staticmethod
    def whole_round(rounds):
        done = 0
        while units := rounds.work():
            done += units
        return done


class TestTogether:
    def test_several_at_once_remove_each_run_once(self, committed_cast):
        runs = Runs.of(committed_cast, webhook_url=None)
        add_old_runs(runs.trigger_id, 300, NOON)
        assert sum(accepted(at_once(*[lambda: prune(limit=7)] * 3))) >= 300 - 14
        prune()
        assert there() == set()
        assert sum(row["runs"] for row in pruned_rows()) == 300

    def test_a_run_that_somebody_holds_is_left_for_another_time(self, committed_cast):
        runs = Runs.of(committed_cast, webhook_url=None)
        add_old_runs(runs.trigger_id, 3, NOON)
        held = min(there())
        with transaction.atomic():
            execute("SELECT FROM run WHERE id = %(id)s FOR UPDATE", {"id": held})
            assert Started(prune).answer() == 2
        assert there() == {held}
        assert prune() == 1

    def test_one_that_waits_for_a_lock_gives_up_soon_and_goes_on(self, committed_cast):
        runs = Runs.of(committed_cast, webhook_url=None)
        add_old_runs(runs.trigger_id, 5, NOON)
        original = Run.objects.get(retry_of__isnull=False).retry_of_id
        with transaction.atomic():
            execute("SELECT FROM run WHERE id = %(id)s FOR UPDATE", {"id": original})
            assert Started(lambda: prune(limit=1)).answer() == 3
        assert prune() == 2
        assert there() == set()

    def test_a_delivery_that_is_sent_again_meanwhile_stays_with_its_run(self, committed_cast):
        delivery = self.old_delivery(committed_cast)
        with transaction.atomic():
            sending.redeliver(delivery_id=delivery.id, actor=TEST_ACTOR)
            Started(lambda: prune(limit=1)).answer()
        assert Delivery.objects.filter(run=delivery.run).count() == 2

    def test_one_that_is_gone_is_not_sent_again(self, committed_cast):
        delivery = self.old_delivery(committed_cast)
        with transaction.atomic():
            prune()
            again = Started(lambda: sending.redeliver(delivery_id=delivery.id, actor=TEST_ACTOR))
            again.wait_until_blocked()
        assert isinstance(again.answer(), NotFound)

    @staticmethod
    def old_delivery(cast):
        runs = Runs.of(cast)
        add_old_runs(runs.trigger_id, 20, NOON)
        return Delivery.objects.order_by("id")[0]
