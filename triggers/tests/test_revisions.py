"""GET /triggers/:id/revisions and POST /triggers/:id/revisions/:revisionId/restore"""

from functools import partial
from typing import Any

import pytest
from django.db.models.expressions import RawSQL

from pipedai.api import pagination
from pipedai.sql import database_now
from testing.probes.audited import audited
from testing.probes.plans import explained, prefer_indexes
from testing.probes.shapes import A_TIME, AN_ID, NOT_FOUND, page
from testing.processes.racing import ROUNDS, accepted, at_once
from testing.world.cast import TEST_ACTOR
from testing.world.copied_rows import copy_ended_run
from testing.world.runs import Runs
from triggers import listing
from triggers.models import Trigger, TriggerRevision
from triggers.revisions import restore_revision
from triggers.services import TRIGGERS

SCHEMA = {"type": "object", "b": 1, "a": 1.0}


def change(cast, **body):
    answer = cast.client(cast.admin).patch(f"/api/v1/triggers/{cast.trigger_id}", body)
    assert answer.status_code == 200


def revisions(cast, trigger_id=None, **query):
    url = f"/api/v1/triggers/{trigger_id or cast.trigger_id}/revisions"
    answer = cast.client(cast.viewer).get(url, query)
    assert answer.status_code == 200
    return answer.json()


def restore(cast, revision_id, trigger_id=None):
    url = f"/api/v1/triggers/{trigger_id or cast.trigger_id}/revisions/{revision_id}/restore"
    return cast.client(cast.admin).post(url)


def shown(created_by, prompt, model=None, schema=None):
    return {
        "id": AN_ID,
        "createdAt": A_TIME,
        "createdBy": created_by,
        "prompt": prompt,
        "model": model,
        "outputSchema": schema,
        "before": None,
        "carry": "none",
    }


def test_each_is_listed_with_who_made_it_the_present_one_first(cast):
    TriggerRevision.objects.update(created_by_type=None, created_by_id=None)
    change(cast, prompt="Do more.", outputSchema=SCHEMA)
    url = f"/api/v1/triggers/{cast.trigger_id}"
    assert cast.key_client("admin").patch(url, {"model": "opus"}).status_code == 200
    key = cast.environment.api_keys.latest("id")
    by_key = {"type": "api_key", "id": str(key.id), "label": key.name}
    by_admin = {"type": "user", "id": str(cast.admin.id), "label": cast.admin.email}
    assert revisions(cast) == page(
        shown(by_key, "Do more.", "opus", SCHEMA),
        shown(by_admin, "Do more.", schema=SCHEMA),
        shown(None, "Report."),
    )


def test_a_run_names_the_revision_that_it_was_queued_with(cast):
    run_id = Runs(cast, cast.trigger_id).queue()
    (first,) = revisions(cast)["items"]
    change(cast, prompt="Do more.")
    run = cast.client(cast.viewer).get(f"/api/v1/runs/{run_id}").json()
    assert run["triggerRevisionId"] == first["id"]


def test_a_page_is_limited_in_bytes(cast, monkeypatch):
    change(cast, prompt="Do more.")
    monkeypatch.setattr(pagination, "MAX_PAGE_BYTES", 3)
    first = revisions(cast)
    second = revisions(cast, cursor=first["nextCursor"])
    prompts = [item["prompt"] for each in (first, second) for item in each["items"]]
    assert prompts == ["Do more.", "Report."]


def test_a_restored_one_is_a_new_revision_once_and_the_audit_row_says_which(cast):
    (old,) = revisions(cast)["items"]
    change(cast, prompt="Do more.", model="opus", outputSchema=SCHEMA, maxRetries=9)
    with audited() as rows:
        answers = [restore(cast, old["id"]) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json() == answers[1].json()
    trigger = answers[0].json()
    assert [trigger[name] for name in ("prompt", "model", "outputSchema", "maxRetries")] == [
        "Report.", None, None, 9,
    ]  # fmt: skip
    told = rows.the_only(
        "trigger.updated",
        by=("user", cast.admin.id),
        on=("trigger", cast.trigger_id),
        within=cast.environment.id,
    )
    assert told.keys() == {"prompt", "model", "outputSchema", "restoredRevisionId"}
    assert told["restoredRevisionId"] == old["id"]
    newest, *others = revisions(cast)["items"]
    assert len(others) == 2
    assert newest["id"] != old["id"]
    assert newest["createdBy"]["id"] == str(cast.admin.id)
    assert {**newest, **{name: old[name] for name in ("id", "createdAt", "createdBy")}} == old


def test_one_of_another_trigger_is_not_found(cast):
    other = cast.add_trigger(prompt="Another.")
    (theirs,) = revisions(cast, other)["items"]
    answer = restore(cast, theirs["id"])
    assert (answer.status_code, answer.json()) == (404, NOT_FOUND)
    assert len(revisions(cast)["items"]) == 1


@pytest.mark.parametrize("round_", ROUNDS)
def test_beside_a_change_the_trigger_is_as_the_later_one_leaves_it(committed_cast, round_):
    """Both change the prompt, and only the restored one the model, so no mixture may be left."""
    trigger_id = committed_cast.trigger_id
    old = Trigger.objects.get(id=trigger_id).revision_id
    update = partial(TRIGGERS.update, trigger_id, actor=TEST_ACTOR)
    update(values={"prompt": "Do more.", "model": "opus"})
    accepted(
        at_once(
            partial(restore_revision, trigger_id=trigger_id, revision_id=old, actor=TEST_ACTOR),
            partial(update, values={"prompt": "Do less."}),
        )
    )
    now = Trigger.objects.select_related("revision").get(id=trigger_id).revision
    assert (now.prompt, now.model) in [("Report.", None), ("Do less.", None)]
    made = TriggerRevision.objects.filter(trigger_id=trigger_id).order_by("created_at")
    assert made.count() == 4
    assert made.last() == now


def test_recent_are_the_ended_runs_that_were_queued_with_each(cast):
    runs = Runs(cast, cast.trigger_id, database_now())
    old = [runs.ended(), runs.ended("failed")]
    change(cast, prompt="Do more.")
    runs.now = database_now()
    new = runs.ended()
    runs.queue()
    present, former = revisions(cast, include="recent")["items"]
    assert [each["id"] for each in present["recent"]] == [str(new)]
    assert {each["id"] for each in former["recent"]} == {*map(str, old)}
    assert {each["status"] for each in former["recent"]} == {"succeeded", "failed"}
    assert list(present["recent"][0]) == ["id", "status", "nothingNew", "durationMs", "endedAt"]
    assert "recent" not in revisions(cast)["items"][0]


def test_recent_reads_no_more_runs_than_it_shows(cast):
    for n in range(5):
        change(cast, prompt=f"Do {n} things.")
    run_id = Runs(cast, cast.trigger_id).ended()
    # Each of the six was the present one for an hour, in which it had 800 runs.
    TriggerRevision.objects.update(
        created_at=RawSQL(
            "statement_timestamp() - interval '1 hour' * (SELECT count(*) FROM trigger_revision r"
            " WHERE r.id >= trigger_revision.id)", []
        )
    )  # fmt: skip
    at = "statement_timestamp() - interval '4.5 s' * (n - 0.5)"
    copy_ended_run(run_id, 4_800, queued_at=at, ended_at=at,
        revision_id="(SELECT (array_agg(id ORDER BY id DESC))[1 + (n - 1) / 800] FROM trigger_revision)")  # fmt: skip
    rows: list[Any] = [*TriggerRevision.objects.values("id")]
    prefer_indexes()
    with explained("SELECT r.*") as plans:
        found = listing.with_runs_of_revisions(rows)
    assert [len(each["recent"]) for each in found] == [listing.RECENT_RUNS] * 6
    assert plans.rows_read("run") <= 6 * (listing.RECENT_RUNS + 1)
