"""Enrollment by a pairing that a person approves, in the manner of RFC 8628."""

from datetime import timedelta

import pytest
from django.db import connection
from django.db.models import F
from django.db.models.functions import Now

from pipedai.api.errors import ApiError
from pipedai.api.throttling import TooManyRequests
from testing.processes.racing import at_once
from testing.world.cases import cases
from testing.world.cast import TEST_ACTOR, browser
from workers.enrollment import issuing
from workers.enrollment.issuing import make_device_code, make_user_code, normal_user_code
from workers.enrollment.tests.enrolling import begin, redeem
from workers.models import Enrollment, Worker


def _approve(cast, enrollment_id, **values):
    return issuing.approve_pairing(
        **{
            "enrollment_id": enrollment_id,
            "environment_id": cast.environment.id,
            "auth_mode": "api_key",
            "user_id": cast.admin.id,
            "actor": TEST_ACTOR,
            **values,
        }
    )


def _deny(cast, enrollment_id):
    return issuing.deny_pairing(
        enrollment_id=enrollment_id, user_id=cast.viewer.id, actor=TEST_ACTOR
    )


def _an_interval_later():
    """Changes the rows as if the hosts' last requests had come a minute earlier."""
    Enrollment.objects.update(polled_at=F("polled_at") - timedelta(seconds=60))


def test_codes_are_long_and_have_no_letters_that_look_alike():
    codes = [make_user_code() for _ in range(200)]
    assert all(len(code) == 9 and code[4] == "-" for code in codes)
    letters = set("".join(codes)) - {"-"}
    assert not letters & set("AEIOUY0123456789")
    assert 20**8 >= 2**34
    assert len(make_device_code()) >= 128 / 6


@cases("typed", ["wdjb-mjht", " WDJB MJHT ", "WDJBMJHT", "wdjb–mjht"])
def test_a_code_may_be_typed_in_many_ways(typed):
    assert normal_user_code(typed) == "WDJB-MJHT"


@cases("typed", ["", "WDJB-MJH", "WDJB-MJHTX", "WDJB-MJHA", "WDJB-MJH1", "ＷDJB-MJHT"])
def test_what_is_no_code_is_none(typed):
    assert normal_user_code(typed) is None


@pytest.mark.django_db
@pytest.mark.parametrize("label", ["one\ntwo", "\u202ellorayp", "\u200b", ""])
def test_a_host_does_not_call_itself_what_would_mislead_who_reads_it(label):
    assert begin(label=label).status_code == 400


def test_a_host_waits_until_it_is_approved(cast):
    begun = begin(label="The new one").json()
    device_code = begun["deviceCode"]
    answer = redeem(deviceCode=device_code)
    assert (answer.status_code, answer.json()) == (
        400,
        {"error": "authorization_pending", "code": "authorization_pending"},
    )
    _approve(cast, begun["id"])
    # The label that was approved counts, and not the one that the host sends now.
    answer = redeem(deviceCode=device_code, label="Another")
    assert answer.status_code == 201
    worker = Worker.objects.get(id=answer.json()["workerId"])
    assert (worker.label, worker.auth_mode) == ("The new one", "api_key")
    assert worker.environment_id == cast.environment.id
    assert redeem(deviceCode=device_code).status_code == 409


def test_who_asks_too_fast_is_to_wait_longer_from_then_on(cast):
    device_code = begin().json()["deviceCode"]
    errors = [redeem(deviceCode=device_code).json()["error"] for _ in range(3)]
    assert errors == ["authorization_pending", "slow_down", "slow_down"]
    assert Enrollment.objects.get().poll_seconds == 15
    Enrollment.objects.update(polled_at=Now() - timedelta(seconds=10))
    assert redeem(deviceCode=device_code).json()["error"] == "slow_down"
    _an_interval_later()
    assert redeem(deviceCode=device_code).json()["error"] == "authorization_pending"


def test_a_host_that_was_denied_is_told_so(cast):
    begun = begin().json()
    _deny(cast, begun["id"])
    assert redeem(deviceCode=begun["deviceCode"]).status_code == 403


@pytest.mark.parametrize("approved", [False, True])
def test_ten_minutes_are_all_it_has(cast, approved):
    begun = begin().json()
    if approved:
        _approve(cast, begun["id"])
    Enrollment.objects.update(expires_at=Now())
    assert redeem(deviceCode=begun["deviceCode"]).status_code == 410
    with pytest.raises(ApiError):
        _deny(cast, begun["id"])


def test_of_approving_and_denying_at_once_one_counts(committed_cast):
    for _ in range(5):
        begun = begin().json()
        answers = at_once(
            lambda: _approve(committed_cast, begun["id"]),  # noqa: B023 - it is called at once
            lambda: _deny(committed_cast, begun["id"]),  # noqa: B023
        )
        refused = [answer for answer in answers if isinstance(answer, ApiError)]
        assert [answer.status_code for answer in refused] == [409]
        status = redeem(deviceCode=begun["deviceCode"]).status_code
        assert status == (403 if isinstance(answers[0], ApiError) else 201)


@pytest.mark.parametrize("who", ["operator", "viewer", "stranger"])
def test_only_an_admin_of_the_environment_approves(cast, who):
    begun = begin().json()
    with pytest.raises(ApiError) as refusal:
        _approve(cast, begun["id"], user_id=getattr(cast, who).id)
    assert refusal.value.status_code == (404 if who == "stranger" else 403)
    assert redeem(deviceCode=begun["deviceCode"]).status_code == 400


def test_a_host_whose_approver_is_no_admin_any_more_gets_nothing(cast):
    begun = begin().json()
    _approve(cast, begun["id"])
    cast.environment.memberships.filter(user=cast.admin).update(role="viewer")
    assert redeem(deviceCode=begun["deviceCode"]).status_code == 403


def test_a_user_may_type_five_wrong_codes_and_then_not_even_the_right_one(cast):
    code = begin().json()["userCode"]
    for _ in range(3):  # right codes don't count
        assert issuing.find_pending(typed=code, user_id=cast.admin.id)
    for _ in range(5):
        with pytest.raises(ApiError) as refusal:
            issuing.find_pending(typed="BBBB-BBBB", user_id=cast.admin.id)
        assert refusal.value.status_code == 404
    with pytest.raises(TooManyRequests):
        issuing.find_pending(typed=code, user_id=cast.admin.id)
    assert issuing.find_pending(typed=code, user_id=cast.owner.id)


def test_wrong_codes_count_until_there_was_none_for_an_hour(cast):
    def guess(minutes_later):
        with connection.cursor() as cursor:
            cursor.execute(
                f"UPDATE throttle SET expires_at = expires_at - interval '{minutes_later} min'"
            )
        with pytest.raises(ApiError) as refusal:
            issuing.find_pending(typed="BBBB-BBBB", user_id=cast.admin.id)
        return refusal.value.status_code

    # Guesses that are refused with 429 do not make the time until the next allowed guess longer.
    assert [guess(50) for _ in range(5)] == [404] * 5
    assert [guess(50), guess(5), guess(6)] == [429, 429, 404]


def test_many_guesses_at_once_are_no_more_than_five(committed_cast):
    def guess():
        return issuing.find_pending(typed="BBBB-BBBB", user_id=committed_cast.admin.id)

    refusals = at_once(*[guess] * 8)
    statuses = sorted(refusal.status_code for refusal in refusals if isinstance(refusal, ApiError))
    assert statuses == [404] * 5 + [429] * 3


@pytest.mark.django_db
def test_so_many_may_wait_at_one_address():
    def begin_at(address):
        return browser().post("/api/v1/enrollments/device", {}, REMOTE_ADDR=address)

    pending = [begin_at(f"2001:db8::{n}").status_code for n in range(issuing.MAX_PENDING)]
    assert set(pending) == {201}
    refused = begin_at("2001:db8::ffff:1")
    assert refused.status_code == 429
    assert 0 < int(refused["Retry-After"]) <= 600
    assert begin_at("2001:db8:0:1::1").status_code == 201
    Enrollment.objects.update(expires_at=Now())
    assert begin_at("2001:db8::1").status_code == 201


def test_of_many_that_begin_at_once_no_more_than_that_wait(own_database):
    def call():
        return issuing.begin_pairing(label=None, address="198.51.100.7", program=None)

    for _ in range(issuing.MAX_PENDING - 2):
        call()
    answers = at_once(*[call] * 6)
    assert sum(not isinstance(answer, ApiError) for answer in answers) == 2
