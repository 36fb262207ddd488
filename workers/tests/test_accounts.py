"""Workers of one account share its usage limit."""

from datetime import timedelta

import pytest
from django.db.models.functions import Now

from pipedai.api import tokens
from pipedai.sql import database_now
from testing.probes.audited import audited
from testing.probes.shapes import invalid
from testing.probes.tables import columns_with
from testing.world import cast as world
from testing.world.cast import browser, issue_enrollment
from workers.authentication import WorkerTokenAuthentication
from workers.models import Worker
from workers.presence import note_account

ACCOUNT = "a-planted-account-word"
MACHINE = {"hostname": "host-2", "os": "linux", "version": "1"}


@pytest.fixture
def register(cast):
    """Returns a function that registers host-2 with changes to the body, and returns its row."""

    def registering(**changes):
        body = {**MACHINE, "token": cast.mint("wrk"), **changes}
        response = browser().post("/api/v1/workers/register", body)
        assert response.status_code == 201, response.json()
        assert ACCOUNT not in response.content.decode()
        return Worker.objects.get(id=response.json()["workerId"])

    return registering


@pytest.fixture
def patch(cast):
    def patching(worker_id=None, **body):
        url = f"/api/v1/workers/{worker_id or cast.worker.worker_id}"
        return cast.client(cast.admin).patch(url, body)

    return patching


def limit(cast, account_id=ACCOUNT, **until):
    """Limits the cast's worker, which pays by this account."""
    limited_until = database_now() + timedelta(**(until or {"hours": 1}))
    Worker.objects.filter(id=cast.worker.worker_id).update(
        account_id=account_id, limited_until=limited_until
    )
    return limited_until


def test_a_registration_stores_the_word_and_keeps_it_if_it_names_none(register):
    assert register(accountId=ACCOUNT).account_id == ACCOUNT
    assert register().account_id == ACCOUNT
    assert register(accountId=None).account_id == ACCOUNT
    assert register(accountId="a-later-word").account_id == "a-later-word"
    assert columns_with("a-later-word") == ["worker.account_id"]


def test_a_host_names_it_when_it_redeems(cast):
    code = issue_enrollment(cast.environment, cast.owner)[1]
    body = {**MACHINE, "code": code, "accountId": ACCOUNT}
    assert browser().post("/api/v1/enrollments/redeem", body).status_code == 201
    assert Worker.objects.get(hostname="host-2").account_id == ACCOUNT


@pytest.mark.parametrize("bad", ["", " ", "x" * 65, "a\tb", "é", 5, True, [], {}], ids=repr)
def test_a_word_that_is_none_is_refused_and_not_repeated(cast, patch, bad):
    refused = patch(accountId=bad)
    assert refused.status_code == 400
    assert list(refused.json()["details"]["fieldErrors"]) == ["accountId"]
    body = {**MACHINE, "token": cast.mint("wrk"), "accountId": bad}
    assert browser().post("/api/v1/workers/register", body).status_code == 400


def test_a_change_is_audited_without_the_word(cast, patch):
    with audited() as rows:
        shown = patch(accountId=ACCOUNT)
        assert patch(accountId=ACCOUNT).json() == shown.json()
        assert patch(accountId=None).status_code == 200
    assert ACCOUNT not in shown.content.decode()
    assert rows.told() == [("worker.updated", {"accountId": "[redacted]"})] * 2
    assert Worker.objects.get(id=cast.worker.worker_id).account_id is None


class TestTheLimitOfItsAccount:
    def test_a_worker_that_registers_has_it(self, cast, register):
        until = limit(cast)
        assert register(accountId=ACCOUNT).limited_until == until
        assert register(accountId="another").limited_until is None

    def test_one_of_another_account_or_a_past_one_does_not_count(self, cast, register):
        limit(cast, "another")
        assert register(accountId=ACCOUNT).limited_until is None
        limit(cast, hours=-1)
        assert register(accountId=ACCOUNT).limited_until is None

    def test_a_worker_that_is_told_its_account_has_it(self, cast, patch):
        until = limit(cast)
        other = cast.register("host-2").worker_id
        shown = patch(other, accountId=ACCOUNT).json()
        assert shown["limitedUntil"] is not None
        assert Worker.objects.get(id=other).limited_until == until

    def test_a_worker_keeps_its_own_when_it_first_names_its_account(self, cast, patch):
        until = limit(cast, None)
        patch(accountId=ACCOUNT)
        assert Worker.objects.get(id=cast.worker.worker_id).limited_until == until

    def test_it_holds_in_one_environment_alone(self, cast, patch):
        theirs = world.register(cast.mint_elsewhere("wrk"), "theirs").worker_id
        until = Now() + timedelta(hours=1)
        Worker.objects.filter(id=theirs).update(account_id=ACCOUNT, limited_until=until)
        other = cast.register("host-2").worker_id
        assert patch(other, accountId=ACCOUNT).json()["limitedUntil"] is None


def test_a_call_whose_token_was_replaced_meanwhile_names_no_account(cast, register):
    token = cast.register("host-2").worker_token
    earlier = WorkerTokenAuthentication().find(tokens.digest(token))
    assert earlier is not None
    assert register(accountId=ACCOUNT).id == earlier.id
    note_account(earlier, header="another")
    assert Worker.objects.get(id=earlier.id).account_id == ACCOUNT


class TestLiftingALimit:
    def test_of_one_worker_alone(self, cast, register, patch):
        limit(cast)
        other = register(accountId=ACCOUNT)
        before = cast.client(cast.viewer).get(f"/api/v1/workers/{other.id}").json()["limitedUntil"]
        with audited() as rows:
            after = patch(other.id, limitedUntil=None)
            assert after.json()["limitedUntil"] is None
            assert patch(other.id, limitedUntil=None).json() == after.json()
        assert rows.told() == [("worker.updated", {"limitedUntil": [before, None]})]
        assert Worker.objects.filter(limited_until__gt=Now()).count() == 1

    def test_one_that_is_past_is_none(self, cast, patch):
        limit(cast, hours=-1)
        with audited() as rows:
            assert patch(limitedUntil=None).json()["limitedUntil"] is None
        assert rows == []

    @pytest.mark.parametrize("value", ["2100-01-01T00:00:00Z", 0, False, "", {}], ids=repr)
    def test_no_other_value_is_taken(self, cast, patch, value):
        until = limit(cast)
        refused = patch(limitedUntil=value)
        assert refused.status_code == 400
        assert refused.json() == invalid({"limitedUntil": ["Must be null."]})
        assert Worker.objects.get(id=cast.worker.worker_id).limited_until == until


def _poll(cast, header=None):
    headers = {} if header is None else {"HTTP_X_PIPEDAI_ACCOUNT_ID": header}
    url = f"/api/v1/workers/{cast.worker.worker_id}/poll"
    response = cast.worker_client().get(url, **headers)
    assert response.status_code == 200
    assert ACCOUNT not in response.content.decode()
    return response.json()


def _stored(cast):
    return Worker.objects.values_list("account_id", flat=True).get(id=cast.worker.worker_id)


def test_a_poll_may_name_it_in_a_header(cast):
    _poll(cast, ACCOUNT)
    assert _stored(cast) == ACCOUNT
    _poll(cast)
    assert _stored(cast) == ACCOUNT
    _poll(cast, "another")
    assert _stored(cast) == "another"


@pytest.mark.parametrize("bad", ["", "x" * 65, "a b", "\u00e9"], ids=repr)
def test_a_header_that_is_no_such_word_is_ignored(cast, bad):
    _poll(cast, ACCOUNT)
    _poll(cast, bad)
    assert _stored(cast) == ACCOUNT


def test_a_worker_that_names_a_limited_account_is_limited_at_once(cast):
    until = limit(cast)
    other = cast.register("host-2")
    url = f"/api/v1/workers/{other.worker_id}/poll"
    client = cast.worker_client(other)
    client.get(url, HTTP_X_PIPEDAI_ACCOUNT_ID=ACCOUNT)
    assert client.get(url).json()["limitedUntil"] is not None
    assert Worker.objects.get(id=other.worker_id).limited_until == until
