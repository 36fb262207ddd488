"""GET /environments/:envId/search"""

import pytest

from testing.probes.plans import explained
from testing.world.cast import make_cast
from testing.world.connections import add_connection
from testing.world.copied_rows import copy_row
from testing.world.pools import add_pool
from testing.world.runs import Runs
from triggers.models import Run, Trigger
from workers import search
from workers.models import Worker

NOTHING: dict[str, list[str]] = {
    kind: [] for kind in ("triggers", "workers", "pools", "connections", "runs")
}


@pytest.fixture
def find(cast):
    url = f"/api/v1/environments/{cast.environment.id}/search"

    def finding(text):
        response = cast.client(cast.viewer).get(url, {"q": text})
        assert response.status_code == 200, response.json()
        return response.json()

    return finding


def test_each_kind_is_found_by_a_part_of_its_name_in_any_case(cast, find):
    trigger = cast.add_trigger(name="Umsätze 100 %")
    Worker.objects.update(label="umsatz 100 %")
    pool = add_pool(cast, name="At 100 %")
    connection = add_connection(cast, name="_100 %")
    assert find("100 %") == {
        "triggers": [{"id": str(trigger), "name": "Umsätze 100 %"}],
        "workers": [{"id": str(cast.worker.worker_id), "name": "umsatz 100 %"}],
        "pools": [{"id": str(pool), "name": "At 100 %"}],
        "connections": [{"id": str(connection), "name": "_100 %"}],
        "runs": [],
    }
    assert find("UMSÄTZE")["triggers"][0]["id"] == str(trigger)
    assert find("1__ %") == find("x" * 200) == NOTHING


def test_names_that_begin_so_come_first_and_deleted_ones_not_at_all(cast, find):
    for name in ("Our report", "Report b", "report A"):
        cast.add_trigger(name=name)
    Trigger.objects.filter(id=cast.add_trigger(name="Report gone")).update(
        deleted_at="2026-01-01T00:00Z"
    )
    names = [each["name"] for each in find("report")["triggers"]]
    assert names == ["report A", "Report b", "Our report", "Nightly report"]
    for n in range(10):
        cast.add_trigger(name=f"report {n}")
    assert len(find("report")["triggers"]) == search.MOST_FOUND


def test_a_run_is_found_by_the_beginning_or_the_end_of_its_id(cast, find):
    run_id = str(Runs(cast, cast.trigger_id).queue())
    found = {"id": run_id, "triggerId": str(cast.trigger_id), "triggerName": "Nightly report",
        "status": "queued"}  # fmt: skip
    parts = (
        run_id,
        run_id[:13],
        run_id[:20].upper(),
        run_id.replace("-", ""),
        run_id[-6:],
        run_id[-13:],
    )
    for part in parts:
        (run,) = find(part)["runs"]
        assert {name: run[name] for name in found} == found, part
    for part in (run_id[:12], run_id[-5:], run_id[1:30], "f" * 36, "-" * 20, run_id[:13] + "x"):
        assert find(part)["runs"] == [], part


def test_nothing_of_another_environment_is_found(cast, find):
    other = make_cast()
    Worker.objects.filter(environment_id=other.environment.id).update(label="elsewhere")
    other.add_trigger(name="elsewhere")
    run_id = str(Runs(other, other.trigger_id).queue())
    for text in ("elsewhere", run_id, run_id[-8:]):
        assert find(text) == NOTHING


def test_a_text_is_needed(cast):
    url = f"/api/v1/environments/{cast.environment.id}/search"
    for query in ({}, {"q": " "}, {"q": "x" * 201}):
        response = cast.client(cast.viewer).get(url, query)
        assert list(response.json()["details"]["fieldErrors"]) == ["q"]


def test_runs_are_looked_for_in_an_index(cast):
    run_id = Runs(cast, cast.trigger_id).ended()
    copy_row(Run, run_id, 3_000)
    with explained("SELECT r.id") as plans:
        assert len(search.find_runs(cast.environment.id, str(run_id)[:13])) >= 1
    # There is one trigger, which PostgreSQL may read whole.
    assert plans.read_whole <= {"trigger"}
