"""GET, PATCH and DELETE /environments/:id"""

import pytest

from pipedai.ids import new_id
from testing.probes.audited import audited
from testing.probes.shapes import A_TIME, NOT_FOUND, invalid
from testing.world.cast import TEST_ACTOR, bearer, browser
from testing.world.runs import Runs
from triggers.models import Trigger
from workers.models import Worker
from workspaces.models import Environment
from workspaces.services import create_environment


@pytest.fixture
def url(cast):
    return f"/api/v1/environments/{cast.environment.id}"


@pytest.fixture
def emptied(cast):
    """Deletes the cast's trigger and worker, so that the environment can be deleted."""
    Trigger.objects.update(deleted_at="2026-01-01T00:00:00Z", next_run_at=None)
    Worker.objects.update(deleted_at="2026-01-01T00:00:00Z", token_digest=None)
    return cast


def shown(cast, role, name="production"):
    return {
        "id": str(cast.environment.id),
        "workspaceId": str(cast.workspace.id),
        "name": name,
        "role": role,
        "paused": False,
        "pausedAt": None,
        "pauseReason": None,
        "createdAt": A_TIME,
    }


def the_row(rows, cast, action, by):
    environment = cast.environment.id
    return rows.the_only(action, by=by, on=("environment", environment), within=environment)


class TestReading:
    @pytest.mark.parametrize("role", ["viewer", "operator", "admin", "owner"])
    def test_shows_the_callers_role(self, cast, url, role):
        response = cast.client(getattr(cast, role)).get(url)
        assert (response.status_code, response.json()) == (200, shown(cast, role))

    @pytest.mark.parametrize("role", ["viewer", "operator", "admin"])
    def test_shows_a_keys_own_role(self, cast, url, role):
        assert cast.key_client(role).get(url).json() == shown(cast, role)

    def test_writes_nothing_into_the_audit_log(self, cast, url):
        with audited() as rows:
            cast.client(cast.viewer).get(url)
        assert rows == []


class TestRenaming:
    def test_answers_the_environment(self, cast, url):
        response = cast.client(cast.admin).patch(url, {"name": "  staging "})
        assert (response.status_code, response.json()) == (200, shown(cast, "admin", "staging"))
        assert Environment.objects.get(id=cast.environment.id).name == "staging"

    def test_is_audited_with_old_and_new(self, cast, url):
        with audited() as rows:
            cast.client(cast.admin).patch(url, {"name": "staging"})
        metadata = the_row(rows, cast, "environment.updated", ("user", cast.admin.id))
        assert metadata == {"name": ["production", "staging"]}

    def test_by_a_key_is_the_keys(self, cast, url):
        client = cast.key_client("admin")
        key = cast.environment.api_keys.latest("created_at")
        with audited() as rows:
            assert client.patch(url, {"name": "staging"}).status_code == 200
        the_row(rows, cast, "environment.updated", ("api_key", key.id))

    def test_the_same_name_changes_nothing(self, cast, url):
        with audited() as rows:
            assert cast.client(cast.admin).patch(url, {"name": "production"}).status_code == 200
        assert rows == []

    def test_a_name_of_the_workspace_is_409(self, cast, url):
        self.another(cast, cast.workspace.id, cast.owner)
        response = cast.client(cast.admin).patch(url, {"name": "taken"})
        assert response.status_code == 409
        assert response.json() == {
            "error": "The workspace has an environment of this name already.",
            "code": "name_taken",
        }

    def test_a_name_of_another_workspace_is_free(self, cast, url):
        self.another(cast, cast.strange_environment.workspace_id, cast.stranger)
        assert cast.client(cast.admin).patch(url, {"name": "taken"}).status_code == 200

    def another(self, cast, workspace_id, user):
        create_environment(
            workspace_id=workspace_id, name="taken", user_id=user.id, actor=TEST_ACTOR
        )

    @pytest.mark.parametrize(
        ("body", "errors"),
        [
            ({"name": ""}, {"name": ["This field may not be blank."]}),
            ({"name": " "}, {"name": ["This field may not be blank."]}),
            ({"name": None}, {"name": ["This field may not be null."]}),
            ({"name": 5}, {"name": ["Must be a string."]}),
            (
                {"name": "x" * 201},
                {"name": ["Ensure this field has no more than 200 characters."]},
            ),
            ({"name": "x", "role": "owner"}, {"role": ["Unknown field."]}),
        ],
        ids=lambda value: str(value)[:40],
    )
    def test_a_bad_field_is_named(self, cast, url, body, errors):
        response = cast.client(cast.admin).patch(url, body)
        assert (response.status_code, response.json()) == (400, invalid(errors))

    def test_two_hundred_characters_are_a_name(self, cast, url):
        assert cast.client(cast.admin).patch(url, {"name": "é" * 200}).status_code == 200


class TestDeleting:
    def test_an_empty_one_is_gone_for_everyone(self, emptied, url):
        cast, client = emptied, emptied.client(emptied.owner)
        with audited() as rows:
            response = client.delete(url)
        assert (response.status_code, response.content) == (204, b"")
        assert the_row(rows, cast, "environment.deleted", ("user", cast.owner.id)) == {}
        for path in ("", "/members", "/api-keys", "/triggers", "/runs", "/workers", "/audit-log"):
            response = client.get(url + path)
            assert (response.status_code, response.json()) == (404, NOT_FOUND)
        listed = client.get(f"/api/v1/workspaces/{cast.workspace.id}/environments").json()
        assert listed["items"] == []

    def test_again_is_404_and_audited_once(self, emptied, url):
        client = emptied.client(emptied.owner)
        with audited() as rows:
            assert [client.delete(url).status_code for _ in "12"] == [204, 404]
        assert len(rows) == 1

    def test_its_keys_are_dead(self, emptied, url):
        pwk, wrk = emptied.key_client("admin"), emptied.mint("wrk")
        emptied.client(emptied.owner).delete(url)
        assert pwk.get(url).status_code == 401
        body = {"token": wrk, "hostname": "h", "os": "linux", "version": "1"}
        assert browser().post("/api/v1/workers/register", body).status_code == 401
        assert bearer(wrk).post("/api/v1/workers/register", body).status_code == 401

    def test_its_name_is_free_again(self, emptied, url):
        client = emptied.client(emptied.owner)
        client.delete(url)
        response = client.post(
            f"/api/v1/workspaces/{emptied.workspace.id}/environments", {"name": "production"}
        )
        assert response.status_code == 201

    def test_it_does_not_count_towards_the_ceiling(self, emptied, url, ceilings):
        ceilings["environments"] = 1
        client = emptied.client(emptied.owner)
        create = f"/api/v1/workspaces/{emptied.workspace.id}/environments"
        assert client.post(create, {"name": "next"}).status_code == 409
        client.delete(url)
        assert client.post(create, {"name": "next"}).status_code == 201

    def test_what_it_still_has_is_named_and_counted(self, cast, url):
        client = cast.client(cast.owner)
        runs = Runs(cast, cast.trigger_id)
        cast.add_trigger()
        self.refused(client, url, "The environment still has 2 triggers, 1 worker.")
        runs.queue()
        self.refused(
            client, url, "The environment still has 2 triggers, 1 unfinished run, 1 worker."
        )
        Trigger.objects.update(deleted_at="2026-01-01T00:00:00Z", next_run_at=None)
        self.refused(client, url, "The environment still has 1 unfinished run, 1 worker.")
        Worker.objects.update(deleted_at="2026-01-01T00:00:00Z", token_digest=None)
        self.refused(client, url, "The environment still has 1 unfinished run.")

    def refused(self, client, url, sentence):
        with audited() as rows:
            response = client.delete(url)
        assert (response.status_code, response.json()) == (
            409,
            {"error": sentence, "code": "has_children"},
        )
        assert rows == []

    def test_ended_runs_do_not_hold_it(self, cast, url):
        Runs(cast, cast.trigger_id).ended()
        Trigger.objects.update(deleted_at="2026-01-01T00:00:00Z", next_run_at=None)
        Worker.objects.update(deleted_at="2026-01-01T00:00:00Z", token_digest=None)
        assert cast.client(cast.owner).delete(url).status_code == 204

    def test_one_that_does_not_exist_is_404(self, cast):
        response = cast.client(cast.owner).delete(f"/api/v1/environments/{new_id()}")
        assert (response.status_code, response.json()) == (404, NOT_FOUND)
