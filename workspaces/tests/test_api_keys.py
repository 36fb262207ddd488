"""The API keys of an environment: GET, POST, DELETE /environments/:envId/api-keys"""

from datetime import UTC, datetime, timedelta

import pytest
from django.db.models.functions import Now

from pipedai.api import tokens
from pipedai.api.renderers import iso_time
from pipedai.ids import new_id
from testing.probes.audited import audited
from testing.probes.shapes import A_TIME, AN_ID, a_token, invalid
from testing.probes.tables import columns_with
from testing.world.cast import bearer
from testing.world.pools import add_pool
from workers.models import Pool
from workspaces.models import ApiKey

SOON = datetime.now(UTC) + timedelta(days=3)


@pytest.fixture
def url(cast):
    return f"/api/v1/environments/{cast.environment.id}/api-keys"


@pytest.fixture
def mint(cast, url):
    """Returns a function that mints a key as the owner."""

    def minting(**body):
        return cast.client(cast.owner).post(url, {"name": "CI", "prefix": "pwk", **body})

    return minting


def key(cast, **changes):
    return {
        "id": AN_ID,
        "name": "CI",
        "prefix": "pwk",
        "lastFour": changes.get("token", "")[-4:],
        "role": "operator",
        "poolIds": [],
        "createdBy": str(cast.owner.id),
        "createdAt": A_TIME,
        "lastUsedAt": None,
        "expiresAt": None,
        "revokedAt": None,
        "consumedAt": None,
        "workerId": None,
        **changes,
    }


class TestMinting:
    def test_the_token_is_answered_once(self, cast, url, mint):
        response = mint()
        assert response.status_code == 201
        body = response.json()
        assert body == key(cast, token=body["token"])
        assert body["token"] == a_token("pwk")
        listed = cast.client(cast.owner).get(url).json()["items"][0]
        assert listed == {name: value for name, value in body.items() if name != "token"}

    def test_the_token_is_stored_nowhere(self, mint):
        token = mint().json()["token"]
        assert columns_with(token, token[4:]) == []
        assert ApiKey.objects.get(kind="pwk").token_digest == tokens.digest(token)

    @pytest.mark.parametrize("role", ["viewer", "operator", "admin"])
    def test_a_pwk_has_the_role_asked_for(self, cast, mint, role):
        body = mint(role=role).json()
        assert body == key(cast, role=role, token=body["token"])
        shown = bearer(body["token"]).get(f"/api/v1/environments/{cast.environment.id}").json()
        assert shown["role"] == role

    def test_a_pwk_lives_until_it_is_told_otherwise(self, cast, mint):
        body = mint(expiresAt=SOON.isoformat()).json()
        assert body == key(cast, expiresAt=iso_time(SOON), token=body["token"])
        assert mint(expiresAt=None).json()["expiresAt"] is None

    def test_a_wrk_has_no_role_and_lives_a_day(self, cast, mint):
        body = mint(prefix="wrk").json()
        assert body == key(cast, prefix="wrk", role=None, expiresAt=A_TIME, token=body["token"])
        assert body["token"] == a_token("wrk")
        row = ApiKey.objects.get(id=body["id"])
        assert row.expires_at is not None
        assert abs(row.expires_at - row.created_at - timedelta(hours=24)) < timedelta(seconds=5)

    def test_a_wrk_may_have_pools_of_the_environment(self, cast, mint):
        pools = sorted(str(add_pool(cast)) for _ in range(2))
        with audited() as rows:
            body = mint(prefix="wrk", poolIds=[pools[1], *pools]).json()
        assert body["poolIds"] == pools
        ((_, metadata),) = rows.told()
        assert metadata["poolIds"] == pools
        assert mint(prefix="wrk", poolIds=[]).json()["poolIds"] == []

    def test_no_other_key_has_pools_and_no_other_pools_are_taken(self, cast, mint):
        own, foreign, deleted = (
            Pool.objects.create(environment=environment, name=name)
            for environment, name in (
                (cast.environment, "own"),
                (cast.strange_environment, "foreign"),
                (cast.environment, "deleted"),
            )
        )
        Pool.objects.filter(id=deleted.id).update(deleted_at=Now())
        assert mint(poolIds=[own.id]).json() == invalid({"poolIds": ["Only a wrk_ key has pools."]})
        for other in (foreign.id, deleted.id, new_id()):
            refused = mint(prefix="wrk", poolIds=[own.id, other])
            assert refused.status_code == 400
            assert refused.json() == invalid(
                {"poolIds": ["One of the ids is no pool of this environment."]}
            )
        too_many = mint(prefix="wrk", poolIds=[new_id() for _ in range(21)])
        assert too_many.json() == invalid({"poolIds": ["A machine is in at most 20 pools."]})
        for bad in ("x", ["x"], [None], None, 5):
            assert mint(prefix="wrk", poolIds=bad).status_code == 400

    @pytest.mark.parametrize("days", [1, 29.99])
    def test_a_wrk_may_live_up_to_thirty_days(self, mint, days):
        until = datetime.now(UTC) + timedelta(days=days)
        body = mint(prefix="wrk", expiresAt=until.isoformat()).json()
        assert body["expiresAt"] == iso_time(until)

    def test_a_time_without_an_offset_is_utc(self, mint):
        assert (
            mint(expiresAt="2099-01-01T12:00:00").json()["expiresAt"] == "2099-01-01T12:00:00.000Z"
        )
        assert (
            mint(expiresAt="2099-01-01T12:00:00+02:00").json()["expiresAt"]
            == "2099-01-01T10:00:00.000Z"
        )

    def test_an_admin_may(self, cast, url):
        response = cast.client(cast.admin).post(
            url, {"name": "x", "prefix": "pwk", "role": "admin"}
        )
        assert response.status_code == 201

    def test_an_environment_has_only_so_many_usable_keys(self, cast, mint, ceilings):
        ceilings["keys"] = 2
        first = mint().json()["id"]
        assert mint(prefix="wrk").status_code == 201
        response = mint()
        assert response.status_code == 409
        assert response.json() == {
            "error": "The environment has 2 usable keys, as many as it may.",
            "code": "ceiling_reached",
            "ceiling": "keys",
        }
        ApiKey.objects.filter(id=first).update(revoked_at=Now())
        assert mint().status_code == 201

    PAST = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
    FAR = (datetime.now(UTC) + timedelta(days=30, hours=1)).isoformat()
    FORMAT = (
        "Datetime has wrong format. Use one of these formats instead:"
        " YYYY-MM-DDThh:mm[:ss[.uuuuuu]][+HH:MM|-HH:MM|Z]."
    )

    BAD = {
        "name-null": ({"name": None}, {"name": ["This field may not be null."]}),
        "name-blank": ({"name": ""}, {"name": ["This field may not be blank."]}),
        "name-long": (
            {"name": "x" * 201},
            {"name": ["Ensure this field has no more than 200 characters."]},
        ),
        "name-number": ({"name": 5}, {"name": ["Must be a string."]}),
        "prefix-unknown": ({"prefix": "wkt"}, {"prefix": ['"wkt" is not a valid choice.']}),
        "prefix-null": ({"prefix": None}, {"prefix": ["This field may not be null."]}),
        "prefix-object": ({"prefix": {}}, {"prefix": ['"{}" is not a valid choice.']}),
        "role-owner": ({"role": "owner"}, {"role": ['"owner" is not a valid choice.']}),
        "role-unknown": ({"role": "king"}, {"role": ['"king" is not a valid choice.']}),
        "role-null": ({"role": None}, {"role": ["This field may not be null."]}),
        "role-of-wrk": ({"prefix": "wrk", "role": "viewer"}, {"role": ["A wrk_ key has no role."]}),
        "just-past": ({"expiresAt": PAST}, {"expiresAt": ["Must be in the future."]}),
        "long-past": (
            {"expiresAt": "2000-01-01T00:00:00Z"},
            {"expiresAt": ["Must be in the future."]},
        ),
        "time-word": ({"expiresAt": "tomorrow"}, {"expiresAt": [FORMAT]}),
        "time-number": ({"expiresAt": 1893456000}, {"expiresAt": [FORMAT]}),
        "time-bool": ({"expiresAt": True}, {"expiresAt": [FORMAT]}),
        "no-such-day": ({"expiresAt": "2099-13-45T00:00:00Z"}, {"expiresAt": [FORMAT]}),
        "time-too-late": (
            {"expiresAt": "9999-12-31T23:59:59-14:00"},
            {"expiresAt": ["Datetime value out of range."]},
        ),
        "wrk-too-long": (
            {"prefix": "wrk", "expiresAt": FAR},
            {"expiresAt": ["A wrk_ key lives at most 30 days."]},
        ),
        "unknown": ({"token": "x"}, {"token": ["Unknown field."]}),
    }

    @pytest.mark.parametrize(("body", "errors"), BAD.values(), ids=BAD)
    def test_a_bad_body_is_refused(self, mint, body, errors):
        response = mint(**body)
        assert (response.status_code, response.json()) == (400, invalid(errors))
        assert not ApiKey.objects.filter(name="CI").exists()

    def test_name_and_prefix_are_required(self, cast, url):
        response = cast.client(cast.owner).post(url, {})
        required = ["This field is required."]
        assert response.json() == invalid({"name": required, "prefix": required})


class TestListing:
    def test_viewers_see_all_of_them_the_newest_first(self, cast, url, mint):
        made = [mint(name=str(n)).json()["id"] for n in range(3)]
        items = cast.client(cast.viewer).get(url).json()["items"]
        assert [item["id"] for item in items][:3] == made[::-1]
        assert all("token" not in item for item in items)
        # The cast's worker used this `wrk_` key up when it registered.
        assert items[-1]["consumedAt"] == A_TIME
        assert items[-1]["workerId"] == str(cast.worker.worker_id)

    def test_a_use_shows(self, cast, url, mint):
        token = mint().json()["token"]
        bearer(token).get(f"/api/v1/environments/{cast.environment.id}")
        assert cast.client(cast.viewer).get(url).json()["items"][0]["lastUsedAt"] == A_TIME

    def test_the_key_of_a_user_who_is_erased_has_no_maker(self, cast, url, mint):
        mint()
        ApiKey.objects.update(created_by=None)
        assert cast.client(cast.viewer).get(url).json()["items"][0]["createdBy"] is None


class TestRevoking:
    def test_it_is_dead_at_once_and_stays_listed(self, cast, url, mint):
        body = mint().json()
        client = bearer(body["token"])
        environment = f"/api/v1/environments/{cast.environment.id}"
        assert client.get(environment).status_code == 200
        response = cast.client(cast.admin).delete(f"{url}/{body['id']}")
        assert (response.status_code, response.content) == (204, b"")
        assert client.get(environment).status_code == 401
        listed = cast.client(cast.viewer).get(url).json()["items"][0]
        assert (listed["id"], listed["revokedAt"]) == (body["id"], A_TIME)

    def test_again_is_as_good_and_keeps_the_first_time(self, cast, url, mint):
        key_id = mint().json()["id"]
        client = cast.client(cast.admin)
        assert client.delete(f"{url}/{key_id}").status_code == 204
        revoked = ApiKey.objects.get(id=key_id).revoked_at
        assert client.delete(f"{url}/{key_id}").status_code == 204
        assert ApiKey.objects.get(id=key_id).revoked_at == revoked

    def test_a_wrk_registers_nobody_any_more(self, cast, url, mint):
        body = mint(prefix="wrk").json()
        cast.client(cast.admin).delete(f"{url}/{body['id']}")
        machine = {"hostname": "h", "os": "linux", "version": "1"}
        response = bearer(body["token"]).post("/api/v1/workers/register", machine)
        assert response.status_code == 401

    def test_a_worker_that_it_registered_lives_on(self, cast, url):
        consumed = ApiKey.objects.get(kind="wrk")
        cast.client(cast.admin).delete(f"{url}/{consumed.id}")
        poll = f"/api/v1/workers/{cast.worker.worker_id}/poll"
        assert cast.worker_client().get(poll).status_code == 200
