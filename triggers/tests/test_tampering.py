"""Somebody changes sealed values in the database: none opens to a wrong value, and nothing crashes."""

from io import StringIO
from uuid import UUID

import pytest
from django.core.management import CommandError, call_command
from structlog.testing import capture_logs

from pipedai.crypto import CannotOpen
from pipedai.outgoing import attempts
from pipedai.outgoing.due import claim_due
from testing.probes.statement_count import counted
from testing.processes.webhook_receiver import Receiver
from testing.world.cast import TEST_ACTOR, Cast
from testing.world.runs import allow
from testing.world.sealed import (
    HEADERS,
    KEY_TAMPERINGS,
    SECRET,
    TAMPERINGS,
    add_sealed_trigger,
    key_in_use,
    master_key,
    opened,
    tamper,
)
from triggers.models import Delivery, Trigger
from triggers.webhooks.sending import WEBHOOKS, send_test

# Every tampering has the same error for all who open a value. So what each of them makes of it is tried with some.
A_VALUE = ("bit flip", "emptied", "wrong data key")
A_KEY = ("unknown master key", "data key flipped")
of_a_value = pytest.mark.parametrize("how", A_VALUE)
of_a_key = pytest.mark.parametrize("how", A_KEY)
of_either = pytest.mark.parametrize("how", [*A_VALUE, *A_KEY])


@pytest.fixture
def trigger_id(cast: Cast) -> UUID:
    allow(cast.worker.worker_id, 9)
    return add_sealed_trigger(cast)


def run(cast: Cast, trigger_id: UUID) -> str:
    answer = cast.client(cast.owner).post(f"/api/v1/triggers/{trigger_id}/run")
    assert answer.status_code == 201
    return str(answer.json()["id"])


def poll(cast: Cast):
    return cast.worker_client().get(f"/api/v1/workers/{cast.worker.worker_id}/poll")


def polled(cast: Cast) -> list[str]:
    answer = poll(cast)
    assert answer.status_code == 200
    return [run["id"] for run in answer.json()["runs"]]


def alarms(logs) -> list[tuple[str, str]]:
    found = [line for line in logs if line["event"] == "secret.cannot_open"]
    assert {line["log_level"] for line in found} <= {"error"}
    for line in found:
        assert line["environment_id"]
        assert line["reason"]
        assert "planted" not in str(line)
    return [(line["row_id"], line["field"]) for line in found]


def command(*arguments: str) -> tuple[str, str]:
    """Runs a command and returns its output and its errors. Checks that neither contains a secret."""
    out, errors = StringIO(), StringIO()
    try:
        call_command(*arguments, stdout=out, stderr=errors)
    except CommandError as error:
        errors.write(f"failed: {error}")
    assert "planted" not in out.getvalue() + errors.getvalue()
    return out.getvalue(), errors.getvalue()


@pytest.mark.parametrize("how", [*TAMPERINGS, *KEY_TAMPERINGS])
def test_it_does_not_open(cast: Cast, trigger_id: UUID, how: str):
    assert opened(trigger_id) == (HEADERS, SECRET)
    tamper(how, trigger_id, cast=cast)
    with pytest.raises(CannotOpen):
        opened(trigger_id)


class TestAPoll:
    @of_a_value
    def test_it_hands_out_all_runs_but_those_and_raises_one_alarm(self, cast, trigger_id, how):
        run(cast, trigger_id)
        tamper(how, trigger_id, cast=cast)
        sound = [run(cast, add_sealed_trigger(cast)), run(cast, cast.trigger_id)]
        with capture_logs() as logs:
            assert polled(cast) == polled(cast) == sound
        assert alarms(logs) == [(str(trigger_id), "mcp_headers")]

    @of_a_key
    def test_of_a_data_key_it_alarms_once_whatever_lies_under_it(self, cast, trigger_id, how):
        runs = [run(cast, each) for each in (trigger_id, add_sealed_trigger(cast))]
        tamper(how, trigger_id, cast=cast)
        sound = run(cast, cast.trigger_id)
        with capture_logs() as logs:
            assert polled(cast) == polled(cast) == [sound]
        assert alarms(logs) == [(str(key_in_use(cast.environment.id).id), "wrapped")]
        for run_id in runs:
            stored = cast.client(cast.owner).get(f"/api/v1/runs/{run_id}").json()
            assert (stored["status"], stored["mcpUrl"]) == ("queued", None)

    def test_they_take_no_other_runs_place(self, cast, trigger_id):
        """The oldest runs are handed out first. If those that do not open took a place, a worker with one
        place would never get another run.
        """
        allow(cast.worker.worker_id, 1)
        for _ in range(3):
            run(cast, trigger_id)
        tamper("bit flip", trigger_id, cast=cast)
        sound = run(cast, cast.trigger_id)
        run(cast, cast.trigger_id)
        with counted() as statements:
            assert polled(cast) == [sound]
        assert len([sql for sql in statements.sql if "trigger_revision" in sql]) == 2

    def test_they_go_out_when_the_headers_are_written_anew(self, cast, trigger_id):
        run_id = run(cast, trigger_id)
        tamper("truncated", trigger_id, cast=cast)
        assert polled(cast) == []
        path = f"/api/v1/triggers/{trigger_id}/rotate-mcp-token"
        answer = cast.client(cast.owner).post(path, {"mcpHeaders": {"x": "new"}})
        assert answer.status_code == 200
        (handed_out,) = poll(cast).json()["runs"]
        assert (handed_out["id"], handed_out["mcpHeaders"]) == (run_id, {"x": "new"})


class TestAWebhook:
    @of_either
    def test_the_attempt_fails_and_others_are_sent(self, cast, receiver: Receiver, how):
        trigger_id = add_sealed_trigger(cast, url=receiver.url())
        delivery_id = send_test(trigger_id=trigger_id, actor=TEST_ACTOR)
        send_test(trigger_id=cast.add_trigger(webhook_url=receiver.url()), actor=TEST_ACTOR)
        tamper(how, trigger_id, cast=cast)
        with capture_logs() as logs:
            for row in claim_due(WEBHOOKS, room=9, busy={}, per_host=9):
                attempts.record(WEBHOOKS, [(row, attempts.send(WEBHOOKS, row))])
        assert len(receiver.received) == 1
        key = how in KEY_TAMPERINGS
        assert alarms(logs) == [
            (str(key_in_use(cast.environment.id).id), "wrapped")
            if key
            else (str(trigger_id), "webhook_secret")
        ]
        delivery = Delivery.objects.get(id=delivery_id)
        assert (delivery.status, delivery.attempt_count) == ("pending", 1)
        (item,) = (
            cast.client(cast.viewer)
            .get(f"/api/v1/triggers/{trigger_id}/deliveries")
            .json()["items"]
        )
        (attempt,) = item["attempts"]
        assert (attempt["statusCode"], attempt["error"]) == (
            None,
            "the webhook's secret does not open",
        )


class TestAWrite:
    @pytest.mark.parametrize("body", [{"mcpHeaders": {"x": "new"}}, {"webhookSecret": "x" * 16}])
    @of_a_key
    def test_a_secret_is_refused_with_503_and_an_alarm(self, cast, trigger_id, how, body):
        tamper(how, trigger_id, cast=cast)
        client = cast.client(cast.owner)
        required = {"name": "New", "prompt": "Report.", "mcpUrl": "https://mcp.example/"}
        with capture_logs() as logs:
            answers = [
                client.patch(f"/api/v1/triggers/{trigger_id}", body),
                client.post(
                    f"/api/v1/environments/{cast.environment.id}/triggers", {**required, **body}
                ),
            ]
        for answer in answers:
            assert answer.status_code == 503
            assert "encryption key does not open" in answer.json()["error"]
            assert answer["Retry-After"]
        assert alarms(logs) == [(str(key_in_use(cast.environment.id).id), "wrapped")]

    @of_either
    def test_all_else_is_as_ever(self, cast, trigger_id, how):
        tamper(how, trigger_id, cast=cast)
        client, path = cast.client(cast.owner), f"/api/v1/triggers/{trigger_id}"
        assert client.get(path).json()["hasWebhookSecret"] is True
        assert client.patch(path, {"name": "Renamed"}).status_code == 200
        cleared = client.patch(path, {"mcpHeaders": None, "webhookSecret": None})
        assert cleared.status_code == 200
        assert cleared.json()["hasMcpHeaders"] is False


class TestCheckKeys:
    @of_a_value
    def test_it_names_both_fields_and_fails(self, cast, trigger_id, how):
        tamper(how, trigger_id, cast=cast)
        _, errors = command("check_keys")
        for field in ("mcp_headers", "webhook_secret"):
            line = (
                f"does not open: trigger {trigger_id}, {field} (environment {cast.environment.id})"
            )
            assert line in errors
        assert "failed: 2 places with something encrypted that does not open." in errors

    @of_a_key
    def test_it_names_the_key_and_all_that_lies_under_it(self, cast, trigger_id, how):
        tamper(how, trigger_id, cast=cast)
        _, errors = command("check_keys")
        key = key_in_use(cast.environment.id)
        assert f"does not open: data_key {key.id}, wrapped" in errors
        assert "failed: 5 places" in errors


class TestRotateKeys:
    @of_a_value
    def test_new_data_keys_leave_it_as_it_is_and_move_the_others(self, cast, trigger_id, how):
        old = key_in_use(cast.environment.id)
        other = add_sealed_trigger(cast)
        tamper(how, trigger_id, cast=cast)
        before = boxes(trigger_id)
        said, errors = command("rotate_keys", "--data")
        assert "2 new data keys" in said
        assert f"does not open: trigger {trigger_id}, mcp_headers" in errors
        assert "failed: 2 places" in errors
        assert boxes(trigger_id) == before
        assert opened(other) == (HEADERS, SECRET)
        assert key_in_use(cast.environment.id).id != old.id

    @of_a_key
    def test_a_data_key_that_does_not_open_is_replaced_only_when_told_so(
        self, cast, trigger_id, how
    ):
        old = key_in_use(cast.environment.id)
        tamper(how, trigger_id, cast=cast)
        _, errors = command("rotate_keys", "--data")
        assert "failed: 5 places" in errors
        assert key_in_use(cast.environment.id).id == old.id
        command("rotate_keys", "--data", "--replace-lost")
        assert key_in_use(cast.environment.id).id != old.id
        path = f"/api/v1/triggers/{trigger_id}"
        body = {"mcpHeaders": HEADERS, "webhookSecret": SECRET}
        assert cast.client(cast.owner).patch(path, body).status_code == 200
        assert opened(trigger_id) == (HEADERS, SECRET)

    @of_a_key
    def test_a_new_master_key_passes_it_over(self, cast, trigger_id, how, settings):
        tamper(how, trigger_id, cast=cast)
        settings.MASTER_KEYS = [master_key("new"), *settings.MASTER_KEYS]
        said, errors = command("rotate_keys", "--master")
        assert "moved to master key new" in said
        assert f"does not open: data_key {key_in_use(cast.environment.id).id}, wrapped" in errors
        assert key_in_use(cast.environment.id).master_key_id != "new"
        assert key_in_use(cast.strange_environment.id).master_key_id == "new"


def boxes(trigger_id: UUID):
    columns = ("mcp_headers", "webhook_secret", "mcp_key_id", "webhook_key_id")
    (row,) = Trigger.objects.filter(id=trigger_id).values_list(*columns)
    return [bytes(box) for box in row[:2]], row[2:]
