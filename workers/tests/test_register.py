"""POST /workers/register"""

from datetime import timedelta
from uuid import UUID

import pytest
from django.db.models.functions import Now

from audit.models import AuditEntry
from pipedai.api import tokens
from testing.probes.audited import audited
from testing.probes.shapes import AN_ID, a_token, invalid
from testing.probes.tables import columns_with
from testing.world.cases import cases
from testing.world.cast import bearer, browser
from testing.world.pools import add_pool
from workers.models import Worker
from workspaces.models import ApiKey, Environment

URL = "/api/v1/workers/register"
MACHINE = {"hostname": "host-2", "os": "Debian 13", "version": "1.2.3"}
BAD = {"error": "The registration token is invalid, used or expired.", "code": "invalid_token"}
MISSING = {
    "error": "The registration token (wrk_) is missing or malformed.",
    "code": "unauthenticated",
}


@pytest.fixture
def register(cast):
    """Returns a function that registers a machine, with changes to the body, by a new token."""

    def registering(*without, **changes):
        token = {} if "token" in changes else {"token": cast.mint("wrk")}
        body = {**MACHINE, **token, **changes}
        return browser().post(URL, {name: body[name] for name in body if name not in without})

    return registering


def shown(cast, worker_id):
    return cast.client(cast.viewer).get(f"/api/v1/workers/{worker_id}").json()


def test_a_machine_becomes_a_worker(cast, register):
    response = register()
    assert response.status_code == 201
    assert response.json() == {
        "workerId": AN_ID,
        "workerToken": a_token("wkt"),
        "workspaceId": str(cast.workspace.id),
        "environmentId": str(cast.environment.id),
        "approved": True,
        "authMode": "claude_max",
    }
    worker = shown(cast, response.json()["workerId"])
    assert {name: worker[name] for name in ("hostname", "os", "version")} == MACHINE
    assert (worker["label"], worker["authMode"]) == ("host-2", "claude_max")
    assert (worker["maxConcurrency"], worker["disabled"]) == (1, False)


def test_registering_does_not_make_it_online(cast, register):
    worker = shown(cast, register().json()["workerId"])
    assert (worker["status"], worker["derivedStatus"]) == ("offline", "offline")
    assert worker["lastSeenAt"] is None


def test_its_token_opens_its_poll(register):
    body = register().json()
    poll = bearer(body["workerToken"]).get(f"/api/v1/workers/{body['workerId']}/poll")
    assert (poll.status_code, poll.json()["runs"]) == (200, [])


def test_its_token_is_stored_nowhere(register):
    token = register().json()["workerToken"]
    assert columns_with(token, token[4:]) == []


def test_what_registering_returns_does_not_show_its_token(cast):
    registered = cast.register("host-2")
    assert registered.worker_token[4:] not in repr(registered)
    assert registered.worker_token[4:] not in f"{registered}"


def test_it_may_say_more(cast, register):
    response = register(label="Build box", authMode="api_key", maxConcurrency=7)
    worker = shown(cast, response.json()["workerId"])
    assert (worker["label"], worker["authMode"], worker["maxConcurrency"]) == (
        "Build box",
        "api_key",
        7,
    )


@pytest.mark.parametrize("mode", ["claude_max", "claude-max", "api_key", "api-key"])
def test_hyphens_are_as_good_as_underscores(cast, register, mode):
    response = register(authMode=mode)
    assert shown(cast, response.json()["workerId"])["authMode"] == mode.replace("-", "_")


def test_null_is_as_good_as_no_label(cast, register):
    assert shown(cast, register(label=None).json()["workerId"])["label"] == "host-2"


class TestTheToken:
    def test_it_may_come_as_bearer(self, cast):
        assert bearer(cast.mint("wrk")).post(URL, MACHINE).status_code == 201

    def test_the_bearer_decides_alone(self, cast):
        good, used = cast.mint("wrk"), cast.mint("wrk")
        ApiKey.objects.filter(token_digest=tokens.digest(used)).update(revoked_at=Now())
        response = bearer(used).post(URL, {**MACHINE, "token": good})
        assert (response.status_code, response.json()) == (401, BAD)
        assert bearer(good).post(URL, {**MACHINE, "token": used}).status_code == 201

    def test_a_session_does_not_matter(self, cast):
        body = {**MACHINE, "token": cast.mint("wrk")}
        assert cast.client(cast.stranger).post(URL, body).status_code == 201

    def test_it_is_used_once(self, cast, register):
        token = cast.mint("wrk")
        statuses = [
            register(token=token, hostname=name).status_code for name in ("host-2", "host-3")
        ]
        assert statuses == [201, 401]
        assert not Worker.objects.filter(hostname="host-3").exists()

    def test_the_key_tells_when_and_by_whom(self, cast, register):
        token = cast.mint("wrk")
        worker_id = register(token=token).json()["workerId"]
        key = ApiKey.objects.get(token_digest=tokens.digest(token))
        assert str(key.consumed_by) == worker_id
        assert key.consumed_at is not None

    @pytest.mark.parametrize("change", ["revoked_at", "expires_at", "environment"])
    def test_a_dead_one_is_refused(self, cast, register, change):
        token = cast.mint("wrk")
        if change == "environment":
            Environment.objects.update(deleted_at=Now())
        else:
            ApiKey.objects.filter(token_digest=tokens.digest(token)).update(**{change: Now()})
        response = register(token=token)
        code = "token_expired" if change == "expires_at" else "invalid_token"
        assert (response.status_code, response.json()) == (401, {**BAD, "code": code})
        assert response["WWW-Authenticate"] == 'Bearer realm="pipedai"'

    def test_one_that_nobody_minted_is_refused(self, register):
        response = register(token=tokens.mint("wrk").value)
        assert (response.status_code, response.json()) == (401, BAD)

    @pytest.mark.parametrize("token", [None, "", "x", 5, True, [], {}, "wrk_", "wrk_" + "0" * 49])
    def test_a_malformed_one_is_refused(self, register, token):
        response = register(token=token)
        assert (response.status_code, response.json()) == (401, MISSING)

    @pytest.mark.parametrize("kind", ["pwk", "wkt"])
    def test_one_of_another_kind_is_refused(self, cast, register, kind):
        token = cast.mint("pwk") if kind == "pwk" else cast.worker.worker_token
        assert register(token=token).status_code == 401
        assert bearer(token).post(URL, MACHINE).status_code == 401

    def test_none_is_refused(self, register):
        response = register("token")
        assert (response.status_code, response.json()) == (401, MISSING)

    def test_a_bad_body_does_not_use_it_up(self, cast, register):
        token = cast.mint("wrk")
        assert register(token=token, hostname="").status_code == 400
        assert register(token=token).status_code == 201


class TestTheSameHost:
    @pytest.fixture
    def again(self, cast, register):
        """Returns a function that registers the host of the cast's worker again."""
        return lambda **changes: register(**{"hostname": "HOST-1", **changes})

    def test_it_is_the_same_worker_with_a_new_token(self, cast, again):
        old, url = cast.worker_client(), f"/api/v1/workers/{cast.worker.worker_id}/poll"
        assert old.get(url).status_code == 200
        body = again().json()
        assert body["workerId"] == str(cast.worker.worker_id)
        assert old.get(url).status_code == 401
        assert bearer(body["workerToken"]).get(url).status_code == 200

    def test_it_keeps_its_label_and_stays_disabled(self, cast, again):
        Worker.objects.update(label="Build box", disabled_at=Now())
        again(label="Another", os="macOS", version="2.0", maxConcurrency=4, authMode="api_key")
        worker = shown(cast, cast.worker.worker_id)
        assert (worker["label"], worker["disabled"], worker["hostname"]) == (
            "Build box",
            True,
            "host-1",
        )
        assert (worker["os"], worker["version"]) == ("macOS", "2.0")
        assert (worker["maxConcurrency"], worker["authMode"]) == (4, "api_key")

    def test_it_keeps_the_runs_that_it_holds(self, cast, again):
        run_id = cast.key_client().post(f"/api/v1/triggers/{cast.trigger_id}/run", {}).json()["id"]
        url = f"/api/v1/workers/{cast.worker.worker_id}/runs/{run_id}"
        cast.worker_client().post(f"{url}/claim", {})
        client = bearer(again().json()["workerToken"])
        assert client.post(f"{url}/start", {}).status_code == 200

    def test_the_audit_row_says_so_with_both_addresses(self, cast):
        for address in ("198.51.100.1", "198.51.100.2"):
            body = {**MACHINE, "token": cast.mint("wrk")}
            browser().post(URL, body, REMOTE_ADDR=address)
        first, second = AuditEntry.objects.filter(
            action="worker.registered", metadata__hostname="host-2"
        ).order_by("created_at")
        assert first.metadata == {"hostname": "host-2", "version": "1.2.3"}
        assert second.metadata == {
            **first.metadata,
            "replaced": True,
            "addresses": ["198.51.100.1", "198.51.100.2"],
        }

    def test_in_another_environment_it_is_another_worker(self, cast, register):
        body = register(hostname="host-1", token=cast.mint_elsewhere("wrk")).json()
        assert body["workerId"] != str(cast.worker.worker_id)
        assert body["environmentId"] == str(cast.strange_environment.id)
        url = f"/api/v1/workers/{cast.worker.worker_id}/poll"
        assert cast.worker_client().get(url).status_code == 200

    def test_after_it_was_deregistered_it_is_another_worker(self, cast, again):
        Worker.objects.update(deleted_at=Now(), token_digest=None)
        body = again().json()
        assert body["workerId"] != str(cast.worker.worker_id)
        assert shown(cast, body["workerId"])["hostname"] == "HOST-1"


def test_an_environment_has_only_so_many_workers(cast, register, ceilings):
    ceilings["workers"] = 1
    response = register()
    assert response.status_code == 409
    assert response.json() == {
        "error": "The environment has 1 machines, as many as it may.",
        "code": "ceiling_reached",
        "ceiling": "workers",
    }
    assert register(hostname="host-1").status_code == 201


def test_a_token_lives_a_day(cast, register):
    token = cast.mint("wrk")
    key = ApiKey.objects.filter(token_digest=tokens.digest(token))
    key.update(expires_at=Now() + timedelta(seconds=30))
    assert register(token=token).status_code == 201


NULL, BLANK, STRING = (
    "This field may not be null.",
    "This field may not be blank.",
    "Must be a string.",
)


def longer_than(count):
    return f"Ensure this field has no more than {count} characters."


@cases(
    ("field", "value", "message"),
    [
        ("hostname", None, NULL),
        ("hostname", " ", BLANK),
        ("hostname", 5, STRING),
        ("hostname", "x" * 256, longer_than(255)),
        ("os", None, NULL),
        ("os", "", BLANK),
        ("os", ["linux"], STRING),
        ("os", "x" * 256, longer_than(255)),
        ("version", None, NULL),
        ("version", "", BLANK),
        ("version", 1.2, STRING),
        ("version", "x" * 65, longer_than(64)),
        ("label", "", BLANK),
        ("label", 5, STRING),
        ("label", "x" * 256, longer_than(255)),
        ("authMode", None, NULL),
        ("authMode", "max", '"max" is not a valid choice.'),
        ("authMode", 5, '"5" is not a valid choice.'),
        ("maxConcurrency", None, NULL),
        ("maxConcurrency", 0, "Ensure this value is greater than or equal to 1."),
        ("maxConcurrency", 1001, "Ensure this value is less than or equal to 1000."),
        ("maxConcurrency", "2", "Must be a whole number."),
        ("maxConcurrency", 1.5, "Must be a whole number."),
        ("maxConcurrency", True, "Must be a whole number."),
    ],
    undone=True,
)
def test_a_bad_value_is_named(register, field, value, message):
    response = register(**{field: value})
    assert (response.status_code, response.json()) == (400, invalid({field: [message]}))
    assert Worker.objects.count() == 1  # only the cast's


@pytest.mark.parametrize("field", ["hostname", "os", "version"])
def test_three_fields_are_required(register, field):
    assert register(field).json() == invalid({field: ["This field is required."]})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hostname", "x" * 255),
        ("os", "x" * 255),
        ("version", "x" * 64),
        ("label", "x" * 255),
        ("maxConcurrency", 1000),
        ("maxConcurrency", 2.0),
        ("futureField", {"a": 1}),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_values_at_their_bounds_and_unknown_fields_are_taken(register, field, value):
    assert register(**{field: value}).status_code == 201


class TestPools:
    """A `wrk_` key may say which pools its worker joins."""

    @pytest.fixture
    def pools(self, cast):
        return sorted(str(add_pool(cast)) for _ in range(2))

    def test_it_joins_those_of_the_key_that_still_exist(self, cast, register, pools):
        token = cast.mint("wrk", pool_ids=[UUID(each) for each in pools])
        cast.client(cast.owner).delete(f"/api/v1/pools/{pools[0]}")
        with audited() as rows:
            worker_id = register(token=token).json()["workerId"]
        assert shown(cast, worker_id)["poolIds"] == [pools[1]]
        ((_, metadata),) = rows.told()
        assert metadata["poolIds"] == [pools[1]]

    def test_registering_again_joins_more_and_leaves_none(self, cast, register, pools):
        for pool_id in pools:
            token = cast.mint("wrk", pool_ids=[UUID(pool_id)])
            worker_id = register(token=token).json()["workerId"]
        worker_id = register().json()["workerId"]
        assert shown(cast, worker_id)["poolIds"] == pools

    def test_beyond_the_ceiling_it_is_refused_and_the_token_is_still_good(
        self, cast, register, pools, ceilings
    ):
        token = cast.mint("wrk", pool_ids=[UUID(each) for each in pools])
        ceilings["poolsOfWorker"] = 1
        refused = register(token=token)
        assert (refused.status_code, refused.json()["ceiling"]) == (409, "poolsOfWorker")
        ceilings["poolsOfWorker"] = 2
        assert register(token=token).status_code == 201
