"""/environments/:envId/channels and /channels/:id"""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from django.db.models.functions import Now

from accounts.models import User
from audit.models import AuditEntry
from notices.channels.services import test_channel as queue_test
from notices.channels.tests.conftest import send_due
from notices.models import AskedAddress, Channel, Notice
from pipedai.events import SYSTEM, Actor
from testing.probes.plans import explained, prefer_indexes
from testing.probes.shapes import A_TIME, AN_ID
from testing.world.cast import make_cast
from testing.world.channels import CHANNEL_SECRET, CHANNEL_URL, add_channel
from testing.world.copied_rows import copy_row
from testing.world.mails import prove
from triggers.models import Trigger
from workspaces.ceilings import raise_ceilings
from workspaces.encryption.rotation import rotate_data_keys
from workspaces.services import create_environment


def create(cast, **body):
    body = {"name": "On call", "kind": "webhook", "url": CHANNEL_URL, **body}
    url = f"/api/v1/environments/{cast.environment.id}/channels"
    return cast.client(cast.admin).post(url, body)


def change(cast, channel_id, **body):
    return cast.client(cast.admin).patch(f"/api/v1/channels/{channel_id}", body)


def test_a_channel_shows_the_host_alone(cast):
    answer = create(cast, secret=CHANNEL_SECRET, events=["run.ended", "trigger_late", "run.ended"])
    assert answer.status_code == 201
    assert answer.json() == {
        "id": AN_ID,
        "key": None,
        "managedBy": None,
        "environmentId": str(cast.environment.id),
        "name": "On call",
        "kind": "webhook",
        "emails": None,
        "recipients": None,
        "host": "hooks.example",
        "hasSecret": True,
        "events": ["trigger_late", "run.ended"],
        "triggerIds": None,
        "when": "always",
        "summary": None,
        "nextSummaryAt": None,
        "enabled": True,
        "failingSince": None,
        "lastError": None,
        "droppedCount": 0,
        "createdAt": A_TIME,
        "updatedAt": A_TIME,
    }


BAD = [
    ({"kind": "pager"}, "kind"),
    ({"url": None}, "url"),
    ({"url": "http://127.0.0.1/"}, "url"),
    ({"secret": "short"}, "secret"),
    ({"events": ["run.started"]}, "events"),
    ({"emails": ["a@example.com"]}, "emails"),
    ({"kind": "slack", "secret": CHANNEL_SECRET}, "secret"),
    ({"kind": "slack", "events": ["run.ended"]}, "events"),
    ({"kind": "email", "url": None}, "emails"),
    ({"kind": "email", "emails": ["a@example.com"]}, "url"),
    ({"kind": "email", "url": None, "emails": ["no address"]}, "emails.0"),
    ({"kind": "email", "url": None, "emails": ["a@example.com\nBcc: b@example.com"]}, "emails.0"),
    ({"kind": "email", "url": None, "emails": [f"a{n}@example.com" for n in range(21)]}, "emails"),
    ({"colour": "red"}, "colour"),
    ({"triggerIds": []}, "triggerIds"),
    ({"triggerIds": [str(UUID(int=1))]}, "triggerIds"),
    ({"when": "never"}, "when"),
    ({"when": []}, "when"),
    ({"when": {"path": "/status"}}, "when"),
    ({"when": [{"path": "status", "op": "eq", "value": 1}]}, "when.0.path"),
    ({"summary": {}}, "summary.at"),
    ({"summary": {"at": "7:00"}}, "summary.at"),
    ({"summary": {"at": "24:00"}}, "summary.at"),
    ({"summary": {"at": "07:00", "timezone": "Mars"}}, "summary.timezone"),
    ({"summary": {"at": "07:00", "weekdays": []}}, "summary.weekdays"),
    ({"summary": {"at": "07:00", "weekdays": ["today"]}}, "summary.weekdays.0"),
    ({"summary": "07:00"}, "summary"),
]


@pytest.mark.parametrize(("body", "field"), BAD)
def test_what_does_not_fit_is_a_field_error(cast, body, field):
    answer = create(cast, **body)
    assert answer.status_code == 400
    assert field in answer.json()["details"]["fieldErrors"]


def test_results_and_summaries_are_shown_as_they_were_set_and_audited(cast):
    channel_id = create(cast).json()["id"]
    clauses = [{"path": "/output/found", "op": "gt", "value": 0}]
    wanted: dict[str, Any] = {
        "triggerIds": [str(cast.trigger_id)],
        "when": clauses,
        "summary": {"at": "07:00", "timezone": "Europe/Berlin", "weekdays": ["mon", "fri"]},
    }
    summary = {**wanted["summary"], "weekdays": ["fri", "mon", "fri"]}
    shown = change(cast, channel_id, **{**wanted, "summary": summary}).json()
    assert {name: shown[name] for name in wanted} == wanted
    assert AuditEntry.objects.get(action="channel.updated").metadata == {
        "triggerIds": [None, [str(cast.trigger_id)]],
        "when": ["always", clauses],
        "summary": [None, wanted["summary"]],
    }
    due = datetime.fromisoformat(shown["nextSummaryAt"]).astimezone(ZoneInfo("Europe/Berlin"))
    assert (f"{due:%H:%M}", due.weekday() in (0, 4)) == ("07:00", True)
    alone = change(cast, channel_id, summary={"at": "00:05"}, events=[]).json()
    assert (alone["events"], alone["summary"]["timezone"]) == ([], "UTC")
    assert alone["summary"]["weekdays"] == ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
    assert change(cast, channel_id, enabled=False).json()["nextSummaryAt"] is None
    assert change(cast, channel_id, enabled=True).json()["nextSummaryAt"] is not None
    # A trigger that was deleted may stay; one of another environment may not.
    Trigger.objects.filter(id=cast.trigger_id).update(deleted_at=Now())
    assert change(cast, channel_id, triggerIds=wanted["triggerIds"]).status_code == 200
    foreign = make_cast().trigger_id
    assert change(cast, channel_id, triggerIds=[str(foreign)]).status_code == 400


@pytest.mark.parametrize("part", [{"summary": {"timezone": "UTC"}}, {"when": [{"path": "/a"}]}])
def test_a_part_of_a_summary_or_a_clause_is_refused_also_by_a_change(cast, part):
    channel_id = create(cast).json()["id"]
    answer = change(cast, channel_id, **part)
    assert (answer.status_code, answer.json()["code"]) == (400, "validation_failed")


def test_another_origin_clears_the_secret_and_another_path_does_not(cast):
    channel_id = create(cast, secret=CHANNEL_SECRET).json()["id"]
    assert change(cast, channel_id, url=f"{CHANNEL_URL}/2").json()["hasSecret"]
    moved = change(cast, channel_id, url="https://others.example/planted-path-too").json()
    assert (moved["host"], moved["hasSecret"]) == ("others.example", False)
    both = change(cast, channel_id, url=CHANNEL_URL, secret=CHANNEL_SECRET).json()
    assert both["hasSecret"]
    assert not change(cast, channel_id, secret=None).json()["hasSecret"]


def test_a_change_that_changes_nothing_is_not_audited(cast):
    channel_id = create(cast, events=["trigger_late"]).json()["id"]
    same = {"name": "On call", "kind": "webhook", "url": CHANNEL_URL, "events": ["trigger_late"]}
    assert change(cast, channel_id, **same).status_code == 200
    assert not AuditEntry.objects.filter(action="channel.updated").exists()
    assert change(cast, channel_id, kind="slack").status_code == 400


def test_the_audit_log_shows_neither_url_nor_address(cast):
    channel_id = create(cast).json()["id"]
    change(cast, channel_id, url=f"{CHANNEL_URL}/2", enabled=False)
    entry = AuditEntry.objects.get(action="channel.updated")
    assert entry.metadata == {"enabled": [True, False], "url": "[redacted]"}


def test_a_deleted_channel_is_gone_and_keeps_no_secret(cast):
    channel_id = create(cast, secret=CHANNEL_SECRET).json()["id"]
    client = cast.client(cast.admin)
    assert client.delete(f"/api/v1/channels/{channel_id}").status_code == 204
    assert client.get(f"/api/v1/channels/{channel_id}").status_code == 404
    row = Channel.objects.get()
    assert (row.url, row.secret, row.url_key_id, row.secret_key_id) == (None,) * 4


def test_a_rotation_of_the_data_key_finds_url_and_secret(cast):
    channel_id = create(cast, secret=CHANNEL_SECRET).json()["id"]
    before = Channel.objects.get(id=channel_id)
    rotate_data_keys(environment_id=cast.environment.id)
    after = Channel.objects.get(id=channel_id)
    assert after.url_key_id != before.url_key_id
    assert after.secret_key_id == after.url_key_id
    assert change(cast, channel_id, url=CHANNEL_URL).json()["hasSecret"]


def test_a_test_of_a_disabled_channel_is_refused(cast):
    channel = add_channel(cast, enabled=False)
    answer = cast.client(cast.admin).post(f"/api/v1/channels/{channel.id}/test", {})
    assert (answer.status_code, answer.json()["code"]) == (409, "channel_disabled")


def test_tests_are_limited_for_the_whole_environment(cast):
    channels = [add_channel(cast), add_channel(cast)]
    client = cast.client(cast.admin)
    statuses = [
        client.post(f"/api/v1/channels/{channels[n % 2].id}/test", {}).status_code
        for n in range(21)
    ]
    assert (statuses[:10], statuses[-1]) == ([201] * 10, 429)


def test_notices_are_listed_with_their_attempts_and_by_status(cast):
    channel = add_channel(cast, url="https://hooks.invalid/planted-path-of-nobody")
    client, url = cast.client(cast.admin), f"/api/v1/channels/{channel.id}"
    client.post(f"{url}/test", {})
    send_due()
    (item,) = client.get(f"{url}/notices", {"status": "pending,dead"}).json()["items"]
    assert (item["event"], item["status"]) == ("channel.test", "pending")
    assert item["attempts"][0]["error"] == "name not found"
    assert client.get(f"{url}/notices", {"status": "digested"}).json()["items"] == []


def test_a_ceiling_is_named(cast, ceilings):
    ceilings["channels"] = 1
    assert create(cast).status_code == 201
    answer = create(cast)
    assert (answer.status_code, answer.json()["ceiling"]) == (409, "channels")


def test_production_without_a_mail_server_has_no_channels_of_mail(cast, settings):
    settings.PRODUCTION, settings.EMAIL_URL = True, ""
    answer = create(cast, kind="email", url=None, emails=["a@example.com"])
    assert (answer.status_code, answer.json()["code"]) == (409, "mail_off")


@pytest.mark.parametrize("has_mail", [True, False])
def test_a_new_environment_begins_with_mail_to_its_creator_if_there_is_mail(
    cast, settings, has_mail
):
    settings.EMAIL_URL = "smtp://127.0.0.1:1" if has_mail else ""
    environment = create_environment(
        workspace_id=cast.workspace.id,
        name="staging",
        user_id=cast.owner.id,
        actor=Actor("user", cast.owner.id),
    )
    emails = Channel.objects.filter(environment=environment).values_list("emails", flat=True)
    assert list(emails) == ([[cast.owner.email]] if has_mail else [])


class TestAddresses:
    """Who gets mail: members who have proved their address, and who has agreed."""

    @pytest.fixture(autouse=True)
    def _mail(self, cast, mail_server):
        prove(cast.admin, cast.owner)
        self.mails = mail_server.received

    def add(self, cast, *emails):
        return create(cast, kind="email", url=None, emails=list(emails))

    def token(self):
        """Sends what is due, and returns the token in the mail that asks."""
        send_due()
        asking = [mail for mail in self.mails if mail.message["Subject"].startswith("Do you want")]
        (text,) = [mail.part("plain") for mail in asking]
        return text.partition("#token=")[2].split()[0]

    def answer(self, cast, which, token):
        return cast.client(cast.stranger).post(f"/api/v1/addresses/{which}", {"token": token})

    def test_a_strange_address_gets_one_mail_that_asks_and_nothing_before_it_agrees(
        self, cast, open_incidents
    ):
        channel = self.add(cast, "ops@example.com", cast.admin.email).json()
        standings = {each["email"]: each["standing"] for each in channel["recipients"]}
        assert standings == {"ops@example.com": "asked", cast.admin.email: "member"}
        self.add(cast, "ops@example.com")
        open_incidents()
        token = self.token()
        to_them = [mail for mail in self.mails if mail.recipients == ["ops@example.com"]]
        assert [mail.message["Subject"] for mail in to_them] == [
            f"Do you want notices of {cast.environment.name}?"
        ]
        assert self.answer(cast, "confirm", token).status_code == 204
        open_incidents()
        send_due()
        to_them = [mail for mail in self.mails if mail.recipients == ["ops@example.com"]]
        # Both channels tell them now.
        assert len(to_them) == 3

    def test_never_again_holds_in_every_environment(self, cast, open_incidents):
        self.add(cast, "ops@example.com")
        assert self.answer(cast, "refuse", self.token()).status_code == 204
        (recipient,) = self.add(cast, "ops@example.com").json()["recipients"]
        assert recipient["standing"] == "refused"
        AskedAddress.objects.all().delete()
        self.add(cast, "ops@example.com")
        open_incidents()
        send_due()
        assert len(self.mails) == 1

    def test_a_refusal_stops_what_is_pending(self, cast, open_incidents):
        self.add(cast, "ops@example.com")
        token = self.token()
        self.answer(cast, "confirm", token)
        open_incidents()
        self.answer(cast, "refuse", token)
        send_due()
        assert len(self.mails) == 1
        assert Notice.objects.get(event="trigger_failing").status == "dead"

    @pytest.mark.parametrize("token", ["x", "", "A" * 64, "é"])
    def test_a_forged_token_is_refused(self, cast, token):
        answer = self.answer(cast, "confirm", token)
        assert answer.status_code in (400, 409)

    def test_a_user_and_a_workspace_may_add_so_many_a_day(self, cast, ceilings):
        ceilings["newAddresses"] = 2
        assert self.add(cast, "a@example.com", "b@example.com").status_code == 201
        answer = self.add(cast, "c@example.com")
        assert (answer.status_code, answer.json()["ceiling"]) == (409, "newAddresses")
        ceilings["newAddressesInWorkspace"] = 2
        ceilings["newAddresses"] = 20
        answer = self.add(cast, "c@example.com")
        assert answer.json()["ceiling"] == "newAddressesInWorkspace"
        assert AskedAddress.objects.count() == 2
        raised = {"newAddressesInWorkspace": 3, "newAddresses": 21}
        raise_ceilings(workspace_id=cast.workspace.id, ceilings=raised, actor=SYSTEM)
        assert self.add(cast, "c@example.com").status_code == 201

    def test_an_address_is_asked_only_so_often_whoever_asks(self, cast, ceilings):
        ceilings["asksOfAddress"] = 1
        assert self.add(cast, "a@example.com").status_code == 201
        AskedAddress.objects.all().delete()
        answer = self.add(cast, "b@example.com", "a@example.com")
        assert (answer.status_code, answer.json()["ceiling"]) == (409, "asksOfAddress")
        assert Notice.objects.count() == 1
        assert self.add(cast, "b@example.com").status_code == 201

    def test_who_has_not_proved_their_own_address_has_no_mail_sent_to_others(self, cast):
        User.objects.filter(id=cast.admin.id).update(email_verified_at=None)
        answer = self.add(cast, cast.owner.email)
        assert (answer.status_code, answer.json()["code"]) == (409, "email_unverified")
        (own,) = self.add(cast, cast.admin.email).json()["recipients"]
        assert own["standing"] == "unknown"
        channel = Channel.objects.get()
        Channel.objects.update(emails=[cast.owner.email])
        tested = cast.client(cast.admin).post(f"/api/v1/channels/{channel.id}/test", {})
        assert (tested.status_code, tested.json()["code"]) == (409, "email_unverified")
        send_due()
        assert self.mails == []

    def test_a_member_who_has_proved_nothing_is_asked_like_a_stranger(self, cast):
        (recipient,) = self.add(cast, cast.viewer.email).json()["recipients"]
        assert recipient["standing"] == "asked"

    def test_a_key_acts_for_who_minted_it(self, cast):
        client, url = (
            cast.key_client("admin"),
            f"/api/v1/environments/{cast.environment.id}/channels",
        )
        body = {"name": "Mail", "kind": "email", "emails": ["ops@example.com"]}
        assert client.post(url, body).status_code == 201
        User.objects.update(email_verified_at=None)
        assert client.post(url, body).json()["code"] == "email_unverified"


def test_recent_are_the_last_notices_of_each_the_newest_last(cast):
    mine, other = add_channel(cast), add_channel(cast, name="Other")
    (first,) = queue_test(channel_id=mine.id, actor=SYSTEM)
    long_ago = Notice.objects.get(id=first).created_at - timedelta(days=1)
    copy_row(Notice, first, 300, created_at=f"'{long_ago.isoformat()}'::timestamptz - n * interval '1 min'",
        status="'dead'", next_attempt_at="NULL")  # fmt: skip
    url = f"/api/v1/environments/{cast.environment.id}/channels"
    client = cast.client(cast.admin)
    assert "recent" not in client.get(url).json()["items"][0]
    prefer_indexes()
    with explained("SELECT n.channel_id") as plans:
        rows = client.get(url, {"include": "recent"}).json()["items"]
    recent = {each["id"]: each["recent"] for each in rows}
    assert recent[str(other.id)] == []
    assert len(recent[str(mine.id)]) == 30
    assert recent[str(mine.id)][-1] == {
        "id": str(first), "event": "channel.test", "status": "pending", "createdAt": A_TIME,
    }  # fmt: skip
    assert {each["status"] for each in recent[str(mine.id)][:-1]} == {"dead"}
    assert plans.rows_read("notice") == 30
