"""POST and GET /workspaces/:wsId/environments"""

import pytest

from testing.probes.shapes import A_TIME, AN_ID, invalid, page
from workspaces.models import DataKey, Environment, Membership


@pytest.fixture
def url(cast):
    return f"/api/v1/workspaces/{cast.workspace.id}/environments"


def test_an_environment_is_made_with_an_owner_and_a_data_key(cast, url):
    response = cast.client(cast.owner).post(url, {"name": "staging"})
    assert response.status_code == 201
    assert response.json() == {
        "id": AN_ID,
        "workspaceId": str(cast.workspace.id),
        "name": "staging",
        "role": "owner",
        "paused": False,
        "pausedAt": None,
        "pauseReason": None,
        "createdAt": A_TIME,
    }
    environment_id = response.json()["id"]
    membership = Membership.objects.get(environment_id=environment_id)
    assert (membership.user, membership.role) == (cast.owner, "owner")
    key = DataKey.objects.get(environment_id=environment_id)
    assert key.master_key_id == "dev"
    assert key.retired_at is None


def test_each_has_a_data_key_of_its_own(cast, url):
    cast.client(cast.owner).post(url, {"name": "staging"})
    wrapped = [bytes(key.wrapped) for key in DataKey.objects.all()]
    assert len(set(wrapped)) == len(wrapped) == 3


def test_a_name_is_taken_once_in_a_workspace(cast, url):
    response = cast.client(cast.owner).post(url, {"name": "production"})
    assert response.status_code == 409
    assert response.json() == {
        "error": "The workspace has an environment of this name already.",
        "code": "name_taken",
    }


def test_another_workspace_may_use_the_name(cast, url):
    client = cast.client(cast.owner)
    other = client.post("/api/v1/workspaces", {"name": "Other"}).json()["id"]
    response = client.post(f"/api/v1/workspaces/{other}/environments", {"name": "production"})
    assert response.status_code == 201


def test_the_name_of_a_deleted_one_is_free_again(cast, url):
    Environment.objects.update(deleted_at="2026-01-01T00:00:00Z")
    assert cast.client(cast.owner).post(url, {"name": "production"}).status_code == 201


def test_an_owner_of_one_of_its_environments_may_make_more(cast, url):
    Membership.objects.filter(user=cast.admin).update(role="owner")
    response = cast.client(cast.admin).post(url, {"name": "staging"})
    assert response.status_code == 201
    assert response.json()["role"] == "owner"


def test_its_creator_may_also_when_no_member_any_more(cast, url):
    Membership.objects.filter(user=cast.admin).update(role="owner")
    Membership.objects.filter(user=cast.owner).delete()
    assert cast.client(cast.owner).post(url, {"name": "staging"}).status_code == 201


def test_the_owner_of_a_deleted_one_may_not(cast, url):
    Membership.objects.filter(user=cast.admin).update(role="owner")
    Environment.objects.update(deleted_at="2026-01-01T00:00:00Z")
    assert cast.client(cast.admin).post(url, {"name": "staging"}).status_code == 404


def test_nor_may_they_as_a_viewer_of_one_that_is_left(cast, url):
    left = cast.client(cast.owner).post(url, {"name": "staging"}).json()["id"]
    Membership.objects.filter(user=cast.admin).update(role="owner")
    Membership.objects.create(environment_id=left, user=cast.admin, role="viewer")
    Environment.objects.exclude(id=left).update(deleted_at="2026-01-01T00:00:00Z")
    assert cast.client(cast.admin).post(url, {"name": "more"}).status_code == 403


@pytest.mark.parametrize("who", ["admin", "operator", "viewer"])
def test_whoever_may_not_is_told_who_may(cast, url, who):
    response = cast.client(getattr(cast, who)).post(url, {"name": "staging"})
    assert response.status_code == 403
    assert response.json() == {
        "error": "Only the workspace's creator and its owners may do this.",
        "code": "forbidden",
    }


def test_one_user_owns_only_so_many(cast, url, ceilings):
    ceilings["environments"] = 2
    client = cast.client(cast.owner)
    assert client.post(url, {"name": "a"}).status_code == 201
    response = client.post(url, {"name": "b"})
    assert response.status_code == 409
    assert response.json() == {
        "error": "You own 2 environments, as many as you may.",
        "code": "ceiling_reached",
        "ceiling": "environments",
    }


def test_the_list_shows_those_of_the_caller_with_their_role(cast, url):
    made = cast.client(cast.owner).post(url, {"name": "staging"}).json()
    production = {
        "id": str(cast.environment.id),
        "workspaceId": str(cast.workspace.id),
        "name": "production",
        "paused": False,
        "pausedAt": None,
        "pauseReason": None,
        "createdAt": A_TIME,
    }
    assert cast.client(cast.owner).get(url).json() == page(made, {**production, "role": "owner"})
    for role in ("admin", "operator", "viewer"):
        listed = cast.client(getattr(cast, role)).get(url).json()
        assert listed == page({**production, "role": role})


def test_deleted_ones_are_not_listed(cast, url):
    Environment.objects.update(deleted_at="2026-01-01T00:00:00Z")
    assert cast.client(cast.owner).get(url).json() == page()


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        ({}, {"name": ["This field is required."]}),
        ({"name": ""}, {"name": ["This field may not be blank."]}),
        ({"name": "x" * 201}, {"name": ["Ensure this field has no more than 200 characters."]}),
        ({"name": 5}, {"name": ["Must be a string."]}),
        ({"name": "x", "role": "owner"}, {"role": ["Unknown field."]}),
    ],
    ids=["missing", "blank", "long", "number", "unknown"],
)
def test_a_bad_body_is_refused(cast, url, body, errors):
    response = cast.client(cast.owner).post(url, body)
    assert response.status_code == 400
    assert response.json() == invalid(errors)
