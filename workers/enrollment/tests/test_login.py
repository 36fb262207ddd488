"""A command line gets a key that acts for whoever approves it, and no more than they may."""

import pytest

from audit.models import AuditEntry
from pipedai.api.errors import ApiError
from pipedai.events import Actor
from testing.processes.racing import at_once
from testing.world.cast import TEST_ACTOR, bearer, browser
from workers.enrollment import issuing
from workers.enrollment.redeeming import redeem_login
from workers.enrollment.tests.enrolling import begin, redeem
from workers.models import Enrollment
from workspaces.members import change_role, remove_member
from workspaces.models import ApiKey
from workspaces.roles import Role


def ask(device_code):
    return browser().post("/api/v1/enrollments/key", {"deviceCode": device_code})


def approve(cast, begun, role, user=None):
    return issuing.approve_pairing(
        enrollment_id=begun["id"],
        environment_id=cast.environment.id,
        role=role,
        user_id=(user or cast.operator).id,
        actor=TEST_ACTOR,
    )


def login(cast, role=Role.OPERATOR, user=None):
    begun = begin(**{"for": "command_line"}).json()
    approve(cast, begun, role, user)
    return ask(begun["deviceCode"])


def test_its_key_does_what_was_chosen_and_acts_for_who_approved(cast):
    begun = begin(label="laptop", **{"for": "command_line"}).json()
    assert ask(begun["deviceCode"]).json()["code"] == "authorization_pending"
    chosen = {"userCode": begun["userCode"], "environmentId": str(cast.environment.id)}
    operator = cast.client(cast.operator)
    statuses = [
        operator.post("/api/v1/pairings/approve", {**chosen, "role": role}).status_code
        for role in ("admin", "owner", "operator")
    ]
    assert statuses == [403, 400, 204]
    Enrollment.objects.update(polled_at=None)
    answer = ask(begun["deviceCode"])
    assert answer.status_code == 201
    body = answer.json()
    assert body["environmentId"] == str(cast.environment.id)
    assert body["apiKey"]["role"] == "operator"
    assert body["apiKey"]["createdBy"] == str(cast.operator.id)
    who = bearer(body["token"]).get("/api/v1/whoami").json()
    assert (who["kind"], who["role"], who["name"]) == ("api_key", "operator", "Command line laptop")
    key = ApiKey.objects.get(id=body["apiKey"]["id"])
    assert key.expires_at
    assert (key.expires_at - key.created_at).days == 90
    actions = AuditEntry.objects.values_list("action", flat=True)
    assert {"enrollment.approved", "api-key.created", "enrollment.redeemed"} <= set(actions)


@pytest.mark.parametrize("kind", ["host", "command_line"])
def test_a_code_gives_only_what_it_was_begun_for(cast, kind):
    begun = begin(**{"for": kind}).json()
    other = ask(begun["deviceCode"]) if kind == "host" else redeem(deviceCode=begun["deviceCode"])
    assert other.status_code == 404
    values = {"auth_mode": "api_key"} if kind == "command_line" else {"role": Role.ADMIN}
    with pytest.raises(ApiError) as error:
        issuing.approve_pairing(
            enrollment_id=begun["id"],
            environment_id=cast.environment.id,
            user_id=cast.admin.id,
            actor=TEST_ACTOR,
            **values,
        )
    assert error.value.status_code == 409


def test_nobody_lends_a_role_that_they_have_not(cast):
    begun = begin(**{"for": "command_line"}).json()
    with pytest.raises(ApiError) as error:
        approve(cast, begun, Role.ADMIN, cast.operator)
    assert error.value.status_code == 403
    with pytest.raises(ApiError) as error:
        approve(cast, begun, Role.VIEWER, cast.stranger)
    assert error.value.status_code == 404
    approve(cast, begun, Role.OPERATOR)
    change_role(
        environment_id=cast.environment.id,
        user_id=cast.operator.id,
        role=Role.VIEWER,
        actor=Actor("user", cast.owner.id),
    )
    assert ask(begun["deviceCode"]).json()["code"] == "enrollment_denied"


@pytest.mark.parametrize("ends", [True, False])
def test_the_key_ends_with_the_right_to_it(cast, ends):
    token = login(cast).json()["token"]
    owner = Actor("user", cast.owner.id)
    own = {"environment_id": cast.environment.id, "user_id": cast.operator.id, "actor": owner}
    change_role(**own, role=Role.VIEWER if ends else Role.ADMIN)
    assert bearer(token).get("/api/v1/whoami").status_code == (401 if ends else 200)
    remove_member(**own)
    assert bearer(token).get("/api/v1/whoami").status_code == 401


def test_a_login_that_two_ask_for_at_once_gives_one_key(committed_cast):
    cast = committed_cast
    begun = begin(**{"for": "command_line"}).json()
    approve(cast, begun, Role.VIEWER)

    def redeemed():
        return redeem_login(device_code=begun["deviceCode"], actor=TEST_ACTOR)[0].key.id

    results = at_once(*[redeemed] * 4)
    assert [each.status_code for each in results if isinstance(each, ApiError)] == [409] * 3
    assert ApiKey.objects.filter(is_login=True).count() == 1
