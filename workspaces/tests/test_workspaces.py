"""POST and GET /workspaces"""

import pytest

from testing.probes.audited import audited
from testing.probes.shapes import A_TIME, AN_ID, invalid, page
from workspaces.models import Environment, Membership, Workspace

URL = "/api/v1/workspaces"


def test_a_workspace_is_made_and_listed(cast):
    client = cast.client(cast.viewer)
    response = client.post(URL, {"name": "Acme"})
    assert response.status_code == 201
    assert response.json() == {"id": AN_ID, "name": "Acme", "createdAt": A_TIME}
    assert response.json() in client.get(URL).json()["items"]
    assert Workspace.objects.get(id=response.json()["id"]).created_by == cast.viewer


def test_two_may_have_one_name(cast):
    client = cast.client(cast.owner)
    responses = [client.post(URL, {"name": "Acme"}) for _ in range(2)]
    assert [response.status_code for response in responses] == [201, 201]


@pytest.mark.parametrize(
    ("sent", "kept"), [("  Acme ", "Acme"), ("x" * 200, "x" * 200), ("é\u00a0😀", "é\u00a0😀")]
)
def test_a_name_is_kept_trimmed(cast, sent, kept):
    assert cast.client(cast.owner).post(URL, {"name": sent}).json()["name"] == kept


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (None, "This field may not be null."),
        ("", "This field may not be blank."),
        (" \t\n", "This field may not be blank."),
        ("x" * 201, "Ensure this field has no more than 200 characters."),
        (5, "Must be a string."),
        (True, "Must be a string."),
        (["x"], "Must be a string."),
        ({"x": 1}, "Must be a string."),
    ],
)
def test_a_bad_name_is_refused(cast, name, message):
    response = cast.client(cast.owner).post(URL, {"name": name})
    assert response.status_code == 400
    assert response.json() == invalid({"name": [message]})


def test_the_name_is_required(cast):
    response = cast.client(cast.owner).post(URL, {})
    assert response.json() == invalid({"name": ["This field is required."]})


class TestWhoSeesOne:
    def seen_by(self, cast, user):
        items = cast.client(user).get(URL).json()["items"]
        return str(cast.workspace.id) in [item["id"] for item in items]

    @pytest.mark.parametrize("who", ["owner", "admin", "operator", "viewer"])
    def test_members_of_any_of_its_environments(self, cast, who):
        assert self.seen_by(cast, getattr(cast, who))

    def test_nobody_else(self, cast):
        assert not self.seen_by(cast, cast.stranger)

    def test_its_creator_also_when_no_member_any_more(self, cast):
        Membership.objects.filter(user=cast.admin).update(role="owner")
        Membership.objects.filter(user=cast.owner).delete()
        assert self.seen_by(cast, cast.owner)

    def test_members_of_a_deleted_environment_no_longer(self, cast):
        Environment.objects.update(deleted_at="2026-01-01T00:00:00Z")
        assert not self.seen_by(cast, cast.viewer)
        assert self.seen_by(cast, cast.owner)

    def test_a_member_of_two_environments_sees_it_once(self, cast):
        other = Environment.objects.create(workspace=cast.workspace, name="staging")
        Membership.objects.create(environment=other, user=cast.viewer, role="viewer")
        assert cast.client(cast.viewer).get(URL).json() == page(
            {"id": str(cast.workspace.id), "name": cast.workspace.name, "createdAt": A_TIME}
        )


def test_one_user_creates_only_so_many(cast, ceilings):
    ceilings["workspaces"] = 2
    client = cast.client(cast.owner)  # the owner has one workspace already
    assert client.post(URL, {"name": "a"}).status_code == 201
    with audited() as rows:
        response = client.post(URL, {"name": "b"})
    assert response.status_code == 409
    assert response.json() == {
        "error": "You have created 2 workspaces, as many as you may.",
        "code": "ceiling_reached",
        "ceiling": "workspaces",
    }
    assert rows == []
    assert cast.client(cast.admin).post(URL, {"name": "b"}).status_code == 201


def test_those_beyond_a_lowered_ceiling_stay(cast, ceilings):
    ceilings["workspaces"] = 0
    client = cast.client(cast.owner)
    assert client.post(URL, {"name": "a"}).status_code == 409
    assert len(client.get(URL).json()["items"]) == 1
