"""…/environments/:envId/members lists and changes the members of an environment and their roles."""

import pytest
from django.db.models import F

from accounts.models import User
from pipedai.ids import new_id
from testing.probes.audited import audited
from testing.probes.shapes import A_TIME, NOT_FOUND, invalid
from testing.world.cast import TEST_ACTOR, bearer, browser, enroll
from testing.world.connections import add_oauth_connection
from testing.world.users import UserFactory
from workers.enrollment.issuing import approve_pairing, begin_pairing
from workers.enrollment.redeeming import redeem
from workspaces.models import ApiKey, Membership

ROLES = ("viewer", "operator", "admin", "owner")


@pytest.fixture
def url(cast):
    return f"/api/v1/environments/{cast.environment.id}/members"


def shown(user, role):
    return {
        "userId": str(user.id),
        "email": user.email,
        "name": user.name,
        "role": role,
        "createdAt": A_TIME,
    }


def role_of(cast, user):
    rows = Membership.objects.filter(environment=cast.environment, user=user)
    return rows.values_list("role", flat=True).first()


def in_environment(cast, user):
    return {"on": ("user", user.id), "within": cast.environment.id}


class TestListing:
    def test_shows_every_member_the_newest_first(self, cast, url):
        Membership.objects.filter(user=cast.admin).update(created_at="2100-01-01T00:00:00Z")
        items = cast.client(cast.viewer).get(url).json()["items"]
        assert items[0] == shown(cast.admin, "admin")
        people = (cast.owner, cast.admin, cast.operator, cast.viewer)
        assert sorted(items, key=str) == sorted(
            (shown(person, person.name) for person in people), key=str
        )

    def test_has_nobody_of_another_environment(self, cast, url):
        response = cast.client(cast.owner).get(url)
        assert str(cast.stranger.id) not in response.content.decode()


class TestAdding:
    @pytest.mark.parametrize("role", ROLES)
    def test_by_id_or_by_address(self, cast, url, role):
        first, second = UserFactory.create(), UserFactory.create()
        client = cast.client(cast.owner)
        response = client.post(url, {"userId": str(first.id), "role": role})
        assert (response.status_code, response.json()) == (201, shown(first, role))
        response = client.post(url, {"email": f" {second.email.upper()} ", "role": role})
        assert (response.status_code, response.json()) == (201, shown(second, role))
        assert role_of(cast, first) == role_of(cast, second) == role

    def test_is_audited_once(self, cast, url):
        with audited() as rows:
            cast.client(cast.admin).post(url, {"userId": cast.stranger.id, "role": "viewer"})
        metadata = rows.the_only(
            "member.added", by=("user", cast.admin.id), **in_environment(cast, cast.stranger)
        )
        assert metadata == {"role": "viewer"}

    def test_opens_the_environment_at_once(self, cast, url):
        client = cast.client(cast.stranger)
        assert client.get(url).status_code == 404
        cast.client(cast.admin).post(url, {"userId": cast.stranger.id, "role": "viewer"})
        assert client.get(url).status_code == 200

    @pytest.mark.parametrize(
        ("caller", "role", "status"),
        [
            ("admin", "viewer", 201),
            ("admin", "admin", 201),
            ("admin", "owner", 403),
            ("owner", "owner", 201),
            ("operator", "viewer", 403),
        ],
    )
    def test_grants_at_most_ones_own_role(self, cast, url, caller, role, status):
        client = cast.client(getattr(cast, caller))
        response = client.post(url, {"userId": cast.stranger.id, "role": role})
        assert response.status_code == status
        assert role_of(cast, cast.stranger) == (role if status == 201 else None)

    @pytest.mark.parametrize("who", ["owner", "viewer"])
    def test_a_member_again_is_409_and_changes_no_role(self, cast, url, who):
        user = getattr(cast, who)
        with audited() as rows:
            response = cast.client(cast.owner).post(url, {"userId": user.id, "role": "admin"})
        assert response.status_code == 409
        assert response.json() == {
            "error": "This user is a member already.",
            "code": "already_member",
        }
        assert role_of(cast, user) == who
        assert rows == []

    def test_nobody_is_404(self, cast, url):
        gone = UserFactory.create(is_active=False)
        client = cast.client(cast.owner)
        for body in (
            {"userId": str(new_id())},
            {"email": "nobody@example.com"},
            {"userId": str(gone.id)},
            {"email": gone.email},
        ):
            response = client.post(url, {**body, "role": "viewer"})
            assert (response.status_code, response.json()) == (404, NOT_FOUND)

    @pytest.mark.parametrize(
        ("body", "errors"),
        [
            ({}, {"role": ["This field is required."]}),
            ({"userId": "x", "role": "viewer"}, {"userId": ["Must be a valid UUID."]}),
            ({"userId": "ID", "role": "boss"}, {"role": ['"boss" is not a valid choice.']}),
            ({"userId": "ID", "role": None}, {"role": ["This field may not be null."]}),
            ({"userId": "ID", "role": "viewer", "rôle": 1}, {"rôle": ["Unknown field."]}),
            ({"email": 5, "role": "viewer"}, {"email": ["Must be a string."]}),
        ],
        ids=str,
    )
    def test_a_bad_field_is_named(self, cast, url, body, errors):
        body = {key: str(cast.stranger.id) if v == "ID" else v for key, v in body.items()}
        response = cast.client(cast.owner).post(url, body)
        assert (response.status_code, response.json()) == (400, invalid(errors))

    @pytest.mark.parametrize("both", [True, False])
    def test_exactly_one_of_id_and_address(self, cast, url, both):
        named = {"userId": str(cast.stranger.id), "email": cast.stranger.email} if both else {}
        response = cast.client(cast.owner).post(url, {**named, "role": "viewer"})
        assert response.status_code == 400
        assert response.json() == invalid(None, "Name the user by either userId or email.")

    def test_a_full_environment_is_409(self, cast, url, ceilings):
        ceilings["members"] = 5
        client = cast.client(cast.owner)
        answers = [
            client.post(url, {"userId": UserFactory.create().id, "role": "viewer"}) for _ in "12"
        ]
        assert [answer.status_code for answer in answers] == [201, 409]
        assert answers[1].json() == {
            "error": "The environment has 5 members, as many as it may.",
            "code": "ceiling_reached",
            "ceiling": "members",
        }


class TestChangingARole:
    @pytest.mark.parametrize("role", ["viewer", "operator", "admin", "owner"])
    def test_answers_the_member(self, cast, url, role):
        response = cast.client(cast.owner).patch(f"{url}/{cast.operator.id}", {"role": role})
        assert (response.status_code, response.json()) == (200, shown(cast.operator, role))
        assert role_of(cast, cast.operator) == role

    def test_is_audited_with_old_and_new(self, cast, url):
        with audited() as rows:
            cast.client(cast.admin).patch(f"{url}/{cast.viewer.id}", {"role": "operator"})
        metadata = rows.the_only(
            "member.role-changed", by=("user", cast.admin.id), **in_environment(cast, cast.viewer)
        )
        assert metadata == {"role": ["viewer", "operator"]}

    def test_the_same_role_changes_nothing(self, cast, url):
        with audited() as rows:
            response = cast.client(cast.owner).patch(f"{url}/{cast.owner.id}", {"role": "owner"})
        assert response.status_code == 200
        assert rows == []

    @pytest.mark.parametrize(
        ("caller", "member", "role", "status"),
        [
            ("admin", "viewer", "admin", 200),
            ("admin", "admin", "viewer", 200),
            ("admin", "viewer", "owner", 403),
            ("admin", "owner", "viewer", 403),
            ("admin", "owner", "owner", 403),
            ("owner", "admin", "owner", 200),
            ("operator", "viewer", "viewer", 403),
            ("operator", "operator", "viewer", 403),
            ("viewer", "viewer", "viewer", 403),
        ],
    )
    def test_takes_a_role_that_includes_both(self, cast, url, caller, member, role, status):
        user = getattr(cast, member)
        client = cast.client(getattr(cast, caller))
        assert client.patch(f"{url}/{user.id}", {"role": role}).status_code == status
        assert role_of(cast, user) == (role if status == 200 else member)

    def test_counts_from_the_next_call_on(self, cast, url):
        client = cast.client(cast.admin)
        assert client.get(url.replace("members", "audit-log")).status_code == 200
        cast.client(cast.owner).patch(f"{url}/{cast.admin.id}", {"role": "viewer"})
        assert client.get(url.replace("members", "audit-log")).status_code == 403

    @pytest.mark.parametrize("role", ["viewer", "operator", "admin"])
    def test_the_last_owner_stays_one(self, cast, url, role):
        with audited() as rows:
            response = cast.client(cast.owner).patch(f"{url}/{cast.owner.id}", {"role": role})
        assert response.status_code == 409
        assert response.json() == {
            "error": "An environment must keep at least one owner.",
            "code": "last_owner",
        }
        assert (role_of(cast, cast.owner), rows) == ("owner", [])

    def test_of_two_owners_one_may_step_down(self, cast, url):
        client = cast.client(cast.owner)
        client.patch(f"{url}/{cast.admin.id}", {"role": "owner"})
        assert client.patch(f"{url}/{cast.owner.id}", {"role": "viewer"}).status_code == 200

    @pytest.mark.parametrize("who", ["stranger", "missing"])
    def test_nobody_is_404(self, cast, url, who):
        user_id = cast.stranger.id if who == "stranger" else new_id()
        response = cast.client(cast.owner).patch(f"{url}/{user_id}", {"role": "viewer"})
        assert (response.status_code, response.json()) == (404, NOT_FOUND)

    @pytest.mark.parametrize(
        ("body", "errors"),
        [
            ({}, {"role": ["This field is required."]}),
            ({"role": ""}, {"role": ['"" is not a valid choice.']}),
            ({"role": "OWNER"}, {"role": ['"OWNER" is not a valid choice.']}),
            ({"role": "viewer", "name": "x"}, {"name": ["Unknown field."]}),
        ],
        ids=str,
    )
    def test_a_bad_field_is_named(self, cast, url, body, errors):
        response = cast.client(cast.owner).patch(f"{url}/{cast.viewer.id}", body)
        assert (response.status_code, response.json()) == (400, invalid(errors))


class TestRemoving:
    @pytest.mark.parametrize(
        ("caller", "member", "status"),
        [
            ("viewer", "viewer", 204),
            ("operator", "operator", 204),
            ("admin", "admin", 204),
            ("owner", "owner", 409),
            ("viewer", "operator", 403),
            ("operator", "viewer", 403),
            ("admin", "operator", 204),
            ("admin", "owner", 403),
            ("owner", "admin", 204),
        ],
    )
    def test_oneself_or_as_an_admin(self, cast, url, caller, member, status):
        user = getattr(cast, member)
        response = cast.client(getattr(cast, caller)).delete(f"{url}/{user.id}")
        assert response.status_code == status
        assert role_of(cast, user) == (None if status == 204 else member)

    def test_closes_the_environment_at_once(self, cast, url):
        client = cast.client(cast.viewer)
        assert client.get(url).status_code == 200
        cast.client(cast.admin).delete(f"{url}/{cast.viewer.id}")
        assert client.get(url).status_code == 404

    def test_again_is_404(self, cast, url):
        client = cast.client(cast.owner)
        with audited() as rows:
            answers = [client.delete(f"{url}/{cast.viewer.id}").status_code for _ in "12"]
        assert answers == [204, 404]
        assert len(rows) == 1

    def test_the_last_owner_stays(self, cast, url):
        response = cast.client(cast.owner).delete(f"{url}/{cast.owner.id}")
        assert response.status_code == 409
        assert response.json() == {
            "error": "An environment must keep at least one owner.",
            "code": "last_owner",
        }

    def test_an_owner_may_leave_to_another(self, cast, url):
        client = cast.client(cast.owner)
        client.patch(f"{url}/{cast.admin.id}", {"role": "owner"})
        assert client.delete(f"{url}/{cast.owner.id}").status_code == 204

    def test_the_audit_row_lists_the_keys_that_live_on(self, cast, url):
        token = cast.client(cast.admin).post(
            url.replace("members", "api-keys"), {"name": "k", "prefix": "pwk"}
        )
        with audited() as rows:
            cast.client(cast.owner).delete(f"{url}/{cast.admin.id}")
        metadata = rows.the_only(
            "member.removed", by=("user", cast.owner.id), **in_environment(cast, cast.admin)
        )
        assert metadata == {"role": ["admin", None], "keysLivingOn": [token.json()["id"]]}
        alive = bearer(token.json()["token"]).get(url.replace("/members", ""))
        assert alive.status_code == 200

    def test_and_the_connections_that_go_on_to_act_for_the_user(self, cast, url):
        connection = add_oauth_connection(cast)
        with audited() as rows:
            cast.client(cast.owner).delete(f"{url}/{cast.admin.id}")
        removed = next(row for row in rows if row.action == "member.removed")
        assert removed.metadata["connectionsLivingOn"] == [
            {"id": str(connection.id), "name": "Issue tracker"}
        ]

    def test_and_none_that_has_expired(self, cast, url):
        made = {"name": "k", "prefix": "pwk"}
        token = cast.client(cast.admin).post(url.replace("members", "api-keys"), made)
        ApiKey.objects.filter(id=token.json()["id"]).update(expires_at=F("created_at"))
        with audited() as rows:
            cast.client(cast.owner).delete(f"{url}/{cast.admin.id}")
        assert rows[0].metadata["keysLivingOn"] == []

    def test_and_those_of_the_hosts_that_the_user_let_in(self, cast, url):
        enroll(cast.environment, cast.admin, "host-by-code")
        begun = begin_pairing(label=None, address=None, program=None)
        approve_pairing(
            enrollment_id=begun.id,
            environment_id=cast.environment.id,
            auth_mode="api_key",
            user_id=cast.admin.id,
            actor=TEST_ACTOR,
        )
        machine = {"hostname": "host-by-pairing", "os": "linux", "version": "1", "label": None}
        redeem(code=None, device_code=begun.device_code, values=machine, actor=TEST_ACTOR)
        let_in = ApiKey.objects.filter(kind="hos").order_by("id").values_list("id", flat=True)
        living = [str(key_id) for key_id in let_in]
        cast.host("host-of-the-owners")
        with audited() as rows:
            cast.client(cast.owner).delete(f"{url}/{cast.admin.id}")
        assert len(living) == 2
        assert rows[0].metadata["keysLivingOn"] == living


class TestTheRegistrationKeysOfSomebodyWhoGoes:
    """An unused `wrk_` key is revoked when its minter is removed or demoted below admin."""

    @pytest.fixture
    def key(self, cast, url):
        response = cast.client(cast.admin).post(
            url.replace("members", "api-keys"), {"name": "k", "prefix": "wrk"}
        )
        return response.json()

    def register(self, key):
        body = {"token": key["token"], "hostname": "h", "os": "linux", "version": "1"}
        return browser().post("/api/v1/workers/register", body).status_code

    @pytest.mark.parametrize("change", ["removed", "operator", "viewer"])
    def test_die(self, cast, url, key, change):
        client, member = cast.client(cast.owner), f"{url}/{cast.admin.id}"
        with audited() as rows:
            if change == "removed":
                client.delete(member)
            else:
                client.patch(member, {"role": change})
        assert self.register(key) == 401
        assert [metadata["keysRevoked"] for _, metadata in rows.told()] == [[key["id"]]]

    def test_live_on_when_the_role_is_still_enough(self, cast, url, key):
        cast.client(cast.owner).patch(f"{url}/{cast.admin.id}", {"role": "owner"})
        assert self.register(key) == 201

    def test_those_of_others_live_on(self, cast, url, key):
        cast.client(cast.owner).delete(f"{url}/{cast.operator.id}")
        assert self.register(key) == 201

    def test_a_used_one_is_not_revoked(self, cast, url, key):
        assert self.register(key) == 201
        cast.client(cast.owner).delete(f"{url}/{cast.admin.id}")
        assert ApiKey.objects.get(id=key["id"]).revoked_at is None

    def test_die_with_a_deactivated_user(self, cast, key):
        User.objects.filter(id=cast.admin.id).update(is_active=False)
        assert self.register(key) == 401
