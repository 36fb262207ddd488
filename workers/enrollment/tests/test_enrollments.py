"""Enrollment by a code that an admin issues (docs/hosts.md)."""

from datetime import timedelta
from functools import partial

import pytest
from django.db.models.functions import Now

from accounts.services import deactivate_user
from pipedai.api import tokens
from pipedai.api.errors import ApiError
from testing.processes.racing import at_once
from testing.world.cast import TEST_ACTOR, bearer, issue_enrollment
from workers.enrollment import redeeming
from workers.enrollment.issuing import revoke_enrollment
from workers.enrollment.redeeming import Redeemed
from workers.enrollment.tests.enrolling import MACHINE, issue, redeem
from workers.models import Enrollment, Worker
from workspaces.models import ApiKey, Environment, Membership


def test_a_code_makes_a_worker_and_a_hosts_key_of_its_environment(cast, settings):
    code = issue(cast, label="The new one", authMode="api-key")["code"]
    answer = redeem(code=code)
    assert answer.status_code == 201
    body = answer.json()
    worker = Worker.objects.get(id=body["workerId"])
    assert (worker.label, worker.hostname, worker.auth_mode) == (
        "The new one",
        "build-2",
        "api_key",
    )
    assert tokens.prefix_of(body.pop("workerToken")) == "wkt"
    assert tokens.prefix_of(body.pop("operatorToken")) == "hos"
    assert body == {
        "workerId": str(worker.id),
        "apiUrl": settings.PUBLIC_URL,
        "workspaceId": str(cast.workspace.id),
        "environmentId": str(cast.environment.id),
        "authMode": "api_key",
    }
    key = ApiKey.objects.get(kind="hos")
    assert (key.environment_id, key.role, key.name) == (
        cast.environment.id,
        None,
        "Host The new one",
    )
    assert worker.host_key_id == key.id


def test_a_code_is_redeemed_once(cast):
    code = issue(cast)["code"]
    assert [redeem(code=code).status_code for _ in range(2)] == [201, 409]


def test_of_two_that_race_one_redeems(committed_cast):
    _, code = issue_enrollment(committed_cast.environment, committed_cast.admin)

    def call():
        values = {**MACHINE, "label": None}
        return redeeming.redeem(code=code, device_code=None, values=values, actor=TEST_ACTOR)

    answers = at_once(*[call] * 4)
    assert sum(isinstance(answer, Redeemed) for answer in answers) == 1
    refused = [answer for answer in answers if isinstance(answer, ApiError)]
    assert {answer.status_code for answer in refused} == {409}
    assert ApiKey.objects.filter(kind="hos").count() == 1


def test_of_redeeming_and_revoking_at_once_one_counts(committed_cast):
    cast = committed_cast
    for n in range(3):
        enrollment, code = issue_enrollment(cast.environment, cast.admin)
        values = {**MACHINE, "hostname": f"build-{n}", "label": None}
        answers = at_once(
            partial(redeeming.redeem, code=code, device_code=None, values=values, actor=TEST_ACTOR),
            partial(
                revoke_enrollment,
                environment_id=cast.environment.id,
                enrollment_id=enrollment.id,
                actor=TEST_ACTOR,
            ),
        )
        redeemed, revoked = (not isinstance(answer, ApiError) for answer in answers)
        assert redeemed is not revoked
        enrollment.refresh_from_db()
        assert (enrollment.consumed_at is not None, enrollment.revoked_at is not None) == (
            redeemed,
            revoked,
        )


def _expire(cast, enrollment_id):
    Enrollment.objects.filter(id=enrollment_id).update(expires_at=Now() - timedelta(seconds=1))


def _revoke(cast, enrollment_id):
    url = f"/api/v1/environments/{cast.environment.id}/enrollments/{enrollment_id}"
    assert cast.client(cast.admin).delete(url).status_code == 204


def _demote(cast, enrollment_id):
    Membership.objects.filter(user=cast.admin).update(role="operator")


def _remove(cast, enrollment_id):
    Membership.objects.filter(user=cast.admin).delete()


def _deactivate(cast, enrollment_id):
    deactivate_user(user_id=cast.admin.id, actor=TEST_ACTOR)


def _delete_environment(cast, enrollment_id):
    Environment.objects.filter(id=cast.environment.id).update(deleted_at=Now())


@pytest.mark.parametrize(
    ("happens", "status"),
    [
        (_expire, 410),
        (_revoke, 403),
        (_demote, 403),
        (_remove, 403),
        (_deactivate, 403),
        (_delete_environment, 403),
    ],
)
def test_a_code_that_is_no_good_any_more_makes_nothing(cast, happens, status):
    issued = issue(cast)
    happens(cast, issued["id"])
    assert redeem(code=issued["code"]).status_code == status
    assert not ApiKey.objects.filter(kind="hos").exists()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"code": "enr_" + "0" * 49}, 404),
        ({"code": "nonsense"}, 404),
        ({"deviceCode": "nonsense"}, 404),
        ({}, 400),
        ({"code": "a", "deviceCode": "b"}, 400),
        ({"code": None, "deviceCode": None}, 400),
        ({"code": "a", "hostname": ""}, 400),
        ({"code": 5}, 400),
    ],
)
def test_what_is_no_code_is_refused(cast, body, status):
    assert redeem(**body).status_code == status


def test_neither_kind_of_code_stands_for_the_other(cast):
    assert redeem(deviceCode=issue(cast)["code"]).status_code == 404


def test_a_code_still_counts_after_the_secret_key_was_rotated(cast, settings):
    code = issue(cast)["code"]
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "another secret key of at least fifty characters, all of them new"
    assert redeem(code=code).status_code == 201


# Python and PostgreSQL convert the last two names to different lower-case forms.
@pytest.mark.parametrize("name", ["host-1", "\u0130stanbul", "\u039f\u0394\u039f\u03a3"])
def test_a_host_never_takes_over_the_worker_of_its_hostname(cast, name):
    taken = cast.register(name)
    hostnames = []
    for _ in range(3):
        worker = redeem(code=issue(cast)["code"], hostname=name).json()["workerId"]
        assert worker != str(taken.worker_id)
        hostnames.append(Worker.objects.get(id=worker).hostname)
    assert hostnames == [f"{name}-{n}" for n in (2, 3, 4)]
    poll = f"/api/v1/workers/{taken.worker_id}/poll"
    assert cast.worker_client(taken).get(poll).status_code == 200


def test_a_hostname_is_taken_whatever_its_case(cast):
    worker = redeem(code=issue(cast)["code"], hostname="HOST-1").json()["workerId"]
    assert Worker.objects.get(id=worker).hostname == "HOST-1-2"


def test_the_longest_hostname_still_gets_its_suffix(cast):
    name = "h" * 255
    answers = [redeem(code=issue(cast)["code"], hostname=name) for _ in range(2)]
    second = Worker.objects.get(id=answers[1].json()["workerId"]).hostname
    assert second == "h" * 253 + "-2"


def test_a_redeemed_enrollment_can_not_be_revoked_and_its_host_lives_on(cast):
    issued = issue(cast)
    host = redeem(code=issued["code"]).json()
    url = f"/api/v1/environments/{cast.environment.id}/enrollments/{issued['id']}"
    answer = cast.client(cast.admin).delete(url)
    assert (answer.status_code, "hos_" in answer.json()["error"]) == (409, True)
    workers = f"/api/v1/workspaces/{cast.workspace.id}/workers"
    assert bearer(host["operatorToken"]).get(workers).status_code == 200


def test_the_list_shows_what_became_of_each_and_no_code(cast):
    issued = issue(cast)
    worker_id = redeem(code=issued["code"]).json()["workerId"]
    url = f"/api/v1/environments/{cast.environment.id}/enrollments"
    (item,) = cast.client(cast.admin).get(url).json()["items"]
    assert (item["kind"], item["workerId"], item["consumedAt"] is None) == (
        "code",
        worker_id,
        False,
    )
    assert item["lastFour"] == issued["code"][-4:]
    assert "code" not in item


def test_one_enrollment_too_many_is_refused(cast, ceilings):
    ceilings["enrollments"] = 1
    issue(cast)
    url = f"/api/v1/environments/{cast.environment.id}/enrollments"
    assert cast.client(cast.admin).post(url, {}).status_code == 409


def test_a_host_that_finds_no_room_may_come_again(cast, ceilings):
    code = issue(cast)["code"]
    ceilings["workers"] = 1
    answer = redeem(code=code)
    assert (answer.status_code, "1 machines" in answer.json()["error"]) == (409, True)
    ceilings["workers"] = 2
    assert redeem(code=code).status_code == 201


@pytest.mark.parametrize(
    "body",
    [
        {"expiresAt": "2020-01-01T00:00:00Z"},
        {"expiresAt": "2200-01-01T00:00:00Z"},
        {"authMode": "cash"},
        {"label": ""},
        {"unknown": 1},
    ],
)
def test_a_bad_body_is_refused(cast, body):
    url = f"/api/v1/environments/{cast.environment.id}/enrollments"
    assert cast.client(cast.admin).post(url, body).status_code == 400
