"""POST /environments/:envId/triggers/bulk and /runs/bulk"""

import pytest

from pipedai.ids import new_id
from testing.world.cast import make_cast
from testing.world.runs import Runs
from triggers.models import Run, Trigger


@pytest.fixture
def send(cast):
    def sending(things, action, *ids, key=None):
        url = f"/api/v1/environments/{cast.environment.id}/{things}/bulk"
        headers = {"Idempotency-Key": key} if key else {}
        body = {"ids": [str(each) for each in ids], "action": action}
        response = cast.client(cast.owner).post(url, body, headers=headers)
        assert response.status_code == 200, response.json()
        return {item["id"]: item["code"] for item in response.json()["items"]}

    return sending


def test_triggers_are_paused_resumed_and_deleted_each_by_itself(cast, send):
    first, second = cast.add_trigger(), cast.add_trigger()
    foreign = make_cast().trigger_id
    Runs(cast, first).queue()
    ids = (first, foreign, second, first, new_id())
    assert list(send("triggers", "pause", *ids).values()) == [None, "not_found", None, "not_found"]
    enabled = lambda: set(Trigger.objects.filter(enabled=True).values_list("id", flat=True))  # noqa: E731
    assert enabled() == {cast.trigger_id, foreign}
    send("triggers", "resume", second, second)
    assert enabled() == {cast.trigger_id, foreign, second}
    assert send("triggers", "delete", first, second) == {
        str(first): "unfinished_runs",
        str(second): None,
    }
    gone = Trigger.objects.filter(deleted_at__isnull=False)
    assert [each.id for each in gone] == [second]


def test_runs_are_canceled_and_rerun_once_for_a_key(cast, send):
    runs, other = Runs(cast, cast.trigger_id), make_cast()
    queued, ended, more = runs.queue(), runs.ended(), runs.ended()
    foreign = Runs(other, other.trigger_id).ended()
    for _ in range(2):
        assert send("runs", "rerun", queued, ended, foreign, more, key="once") == {
            str(queued): "run_state",
            str(ended): None,
            str(foreign): "not_found",
            str(more): None,
        }
    reruns = Run.objects.filter(rerun_of__isnull=False)
    assert {each.rerun_of_id for each in reruns} == {ended, more}
    assert len(reruns) == 2
    assert send("runs", "cancel", queued, ended) == {str(queued): None, str(ended): "run_state"}
    assert Run.objects.get(id=queued).status == "canceled"


def test_a_hundred_rows_at_most_and_a_role_as_for_one(cast):
    url = f"/api/v1/environments/{cast.environment.id}"
    ids = [str(new_id()) for _ in range(101)]
    for things, action in (("triggers", "pause"), ("runs", "cancel")):
        body = {"ids": ids, "action": action}
        for wrong in (body, {**body, "ids": []}, {**body, "ids": ["x"]}, {**body, "action": "x"}):
            response = cast.client(cast.owner).post(f"{url}/{things}/bulk", wrong)
            assert response.status_code == 400
    body = {"ids": ids[:1], "action": "pause"}
    assert cast.client(cast.operator).post(f"{url}/triggers/bulk", body).status_code == 403
    body = {"ids": ids[:1], "action": "cancel"}
    assert cast.client(cast.viewer).post(f"{url}/runs/bulk", body).status_code == 403
