"""Which revisions of triggers are removed."""

from datetime import timedelta

from pipedai.retention import Order
from pipedai.sql import execute
from testing.probes.plans import explained
from testing.world.cases import cases
from testing.world.runs import NOON, Runs
from triggers.models import Trigger, TriggerRevision
from triggers.pruning import prune_revisions

LATER = NOON + timedelta(days=30)


def prune(before=LATER, *, limit=100, dry_run=False):
    return list(prune_revisions(Order(before, limit, dry_run)))


def removed(**order):
    return sum(batch.removed for batch in prune(**order))


def add_revisions(trigger_id, count):
    """Adds former revisions of a trigger, each a minute older than the next, the newest at noon of the day before the
    present one. Returns their ids, the oldest first.
    """
    present = Trigger.objects.get(id=trigger_id)
    TriggerRevision.objects.filter(id=present.revision_id).update(created_at=NOON)
    yesterday = NOON - timedelta(days=1)
    rows = TriggerRevision.objects.bulk_create(
        TriggerRevision(
            environment_id=present.environment_id,
            trigger_id=trigger_id,
            prompt=str(n),
            created_at=yesterday - timedelta(minutes=count - n),
        )
        for n in range(count)
    )
    return [row.id for row in rows]


def there(trigger_id):
    rows = TriggerRevision.objects.filter(trigger_id=trigger_id)
    return set(rows.values_list("id", flat=True))


@cases("limit", [3, 1000], undone=True)
def test_the_last_fifty_of_each_trigger_stay(cast, limit):
    other = cast.add_trigger()
    made = {id_: add_revisions(id_, count) for id_, count in ((cast.trigger_id, 55), (other, 49))}
    assert removed(limit=limit, dry_run=True) == 6
    assert removed(limit=limit) == 6
    assert removed(limit=limit) == 0
    assert len(there(cast.trigger_id)) == 50
    assert not there(cast.trigger_id) & set(made[cast.trigger_id][:6])
    assert len(there(other)) == 50


def test_one_that_a_run_refers_to_stays(cast):
    runs = Runs(cast, cast.trigger_id)
    oldest, *_ = add_revisions(cast.trigger_id, 52)
    execute(
        "UPDATE run SET revision_id = %(to)s WHERE id = %(id)s", {"to": oldest, "id": runs.queue()}
    )
    assert removed() == 2
    assert oldest in there(cast.trigger_id)


def test_one_that_was_made_lately_stays(cast):
    add_revisions(cast.trigger_id, 55)
    assert removed(before=NOON - timedelta(days=2)) == 0


def test_a_step_looks_at_no_more_rows_than_it_may_and_at_few_runs(cast):
    """Each of its rows is looked up once, with 50 entries of an index at most, and its runs by an index."""
    runs = Runs(cast, cast.trigger_id)
    oldest, *_ = add_revisions(cast.trigger_id, 300)
    run_id = runs.queue()
    copy = """
        INSERT INTO run (id, environment_id, trigger_id, revision_id, worker_id, status, source, attempt, max_retries,
            timeout_seconds, available_at, queued_at)
        SELECT gen_random_uuid(), environment_id, trigger_id, %(to)s, worker_id, status, source, attempt, max_retries,
            timeout_seconds, available_at, queued_at
        FROM run, generate_series(1, 2000) WHERE id = %(id)s
    """
    execute(copy, {"to": oldest, "id": run_id})
    with explained("WITH page") as plans:
        (first, *_) = prune(limit=10)
    assert first.removed == 9  # of ten, one of which a run has
    assert plans.rows_read("run") < 400
    assert "run" not in plans.read_whole
    assert plans.rows_read("trigger_revision") < 300 * 60
