"""An answer about a row that the caller can't see equals, byte for byte, one about a row that is missing."""

import pytest

from pipedai.ids import new_id
from testing.probes.shapes import NOT_FOUND, invalid, page
from testing.world.audiences import UNSIGNED
from testing.world.cast import bearer, enroll, issue_enrollment, register
from testing.world.mails import invite_for_test
from testing.world.routes import ROUTES
from testing.world.undone import undone
from workers.models import Worker

# A hook answers 401 to whoever does not sign, whatever the id.
NAMING = [route for route in ROUTES if route.id_names and route.as_ is not UNSIGNED]
OF_WORKERS = [route for route in NAMING if route.of_workers]
OF_HOSTS = [route for route in NAMING if route.of_hosts]
OF_PEOPLE = [route for route in NAMING if not (route.of_workers or route.of_hosts)]
FOR_KEYS = OF_HOSTS + [route for route in OF_PEOPLE if route.keys]


def answer(response):
    """Returns everything that a client sees of an answer."""
    return response.status_code, dict(response.headers), response.content, dict(response.cookies)


def assert_missing(route, client, stage, url, missing_url):
    """Calls both URLs with the same body. Neither call does anything that the other could see."""
    with undone():
        alike = route.with_one_body(stage.cast)
        real, missing = (alike.send(client, each, stage.cast) for each in (url, missing_url))
    assert (real.status_code, real.json()) == (404, NOT_FOUND), route
    assert answer(real) == answer(missing), route


def assert_invisible(routes, client, stage):
    """Looks at all routes in one test, because they share the client and change nothing."""
    assert routes
    for route in routes:
        assert_missing(route, client, stage, route.url(stage), route.missing_url())


def test_to_a_stranger(stage):
    assert_invisible(OF_PEOPLE, stage.cast.client(stage.cast.stranger), stage)


def test_to_a_key_of_another_environment(stage):
    client = bearer(stage.cast.mint_elsewhere("pwk", role="admin"))
    assert_invisible(FOR_KEYS, client, stage)


def test_to_a_host_of_another_environment(stage):
    other = enroll(stage.cast.strange_environment, stage.cast.stranger, "host-1")
    assert_invisible(OF_HOSTS, bearer(other.operator_token), stage)


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_to_another_worker(stage, where):
    cast = stage.cast
    other = (
        cast.register("host-2")
        if where == "here"
        else register(cast.mint_elsewhere("wrk"), "host-2")
    )
    assert_invisible(OF_WORKERS, cast.worker_client(other), stage)


def test_another_workers_run_under_ones_own_name(stage):
    cast = stage.cast
    other = cast.register("host-2")
    client = cast.worker_client(other)
    for route in (route for route in OF_WORKERS if "run_id" in route.id_names):
        own = {"worker_id": other.worker_id}
        missing = route.url(stage, **own, run_id=new_id())
        assert_missing(route, client, stage, route.url(stage, **own), missing)


def test_what_is_deleted_is_as_good_as_missing(stage):
    cast = stage.cast
    client = cast.client(cast.owner)
    Worker.objects.update(deleted_at="2026-01-01T00:00:00Z", token_digest=None)
    url = f"/api/v1/workers/{stage.ids['worker_id']}"
    assert answer(client.get(url)) == answer(client.get(f"/api/v1/workers/{new_id()}"))


@pytest.mark.parametrize("name", ["key_id", "user_id", "enrollment_id", "invitation_id"])
def test_a_row_of_another_environment_under_ones_own(stage, name):
    cast = stage.cast
    elsewhere = {
        "key_id": cast.strange_environment.api_keys,
        "user_id": cast.strange_environment.memberships,
        "enrollment_id": cast.strange_environment.enrollments,
        "invitation_id": cast.strange_environment.invitations,
    }
    cast.mint_elsewhere("pwk")
    issue_enrollment(cast.strange_environment, cast.stranger)
    invite_for_test(cast.strange_environment, cast.stranger, "foreign@example.com")
    client = cast.client(cast.owner)
    row = elsewhere[name].get()
    foreign = row.user_id if name == "user_id" else row.id
    routes = [route for route in ROUTES if name in route.id_names]
    assert routes
    for route in routes:
        missing = route.url(stage, **{name: new_id()})
        assert_missing(route, client, stage, route.url(stage, **{name: foreign}), missing)


class TestAForeignIdIn:
    """A foreign id in a body or a filter gives the same field error as an id that does not exist."""

    @pytest.fixture
    def foreign(self, cast):
        return {
            "workerId": register(cast.mint_elsewhere("wrk"), "strange-host").worker_id,
            "triggerId": None,
        }

    def test_the_body_of_a_new_trigger(self, cast, foreign):
        url = f"/api/v1/environments/{cast.environment.id}/triggers"
        body = {"name": "x", "prompt": "x", "mcpUrl": "https://mcp.example/"}
        answers = [
            cast.client(cast.owner).post(url, {**body, "workerId": worker_id})
            for worker_id in (foreign["workerId"], new_id())
        ]
        assert answer(answers[0]) == answer(answers[1])
        assert answers[0].json() == invalid({"workerId": ["No such machine in this environment."]})

    def test_a_patch_of_a_trigger(self, cast, foreign):
        answers = [
            cast.client(cast.owner).patch(
                f"/api/v1/triggers/{cast.trigger_id}", {"workerId": worker_id}
            )
            for worker_id in (foreign["workerId"], new_id())
        ]
        assert answer(answers[0]) == answer(answers[1])
        assert answers[0].json() == invalid({"workerId": ["No such machine in this environment."]})

    def test_the_heir_of_a_worker(self, cast, foreign):
        answers = [
            cast.client(cast.owner).delete(
                f"/api/v1/workers/{cast.worker.worker_id}?reassignTo={worker_id}"
            )
            for worker_id in (foreign["workerId"], new_id())
        ]
        assert answer(answers[0]) == answer(answers[1])
        assert answers[0].json() == invalid(
            {"reassignTo": ["No such machine in this environment."]}
        )

    @pytest.mark.parametrize("filter_", ["triggers?workerId", "runs?workerId", "runs?triggerId"])
    def test_a_filter(self, cast, foreign, filter_):
        foreign["triggerId"] = cast.trigger_id
        client, environment = cast.client(cast.owner), cast.environment
        if filter_.endswith("triggerId"):
            client, environment = cast.client(cast.stranger), cast.strange_environment
        name = filter_.partition("?")[2]
        answers = [
            client.get(f"/api/v1/environments/{environment.id}/{filter_}={row_id}")
            for row_id in (foreign[name], new_id())
        ]
        assert answer(answers[0]) == answer(answers[1])
        assert answers[0].json() == invalid({name: ["No such id in this environment."]})

    def test_the_filter_of_the_audit_log_which_just_finds_nothing(self, cast):
        url = f"/api/v1/environments/{cast.environment.id}/audit-log"
        for row_id in (cast.strange_environment.id, new_id()):
            assert cast.client(cast.owner).get(f"{url}?targetId={row_id}").json() == page()


def test_a_role_elsewhere_counts_for_nothing_here(stage):
    cast = stage.cast
    route = next(route for route in ROUTES if str(route) == "GET environments/:environment")
    response = route.send(cast.client(cast.stranger), route.url(stage), cast)
    assert response.status_code == 404
    own = route.url(stage, environment_id=cast.strange_environment.id)
    assert route.send(cast.client(cast.stranger), own, cast).json()["role"] == "owner"
