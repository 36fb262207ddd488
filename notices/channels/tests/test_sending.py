"""What goes out over a channel: mails, signed webhooks, and texts for Slack."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks.webhooks import Webhook

from audit.models import AuditEntry
from notices.channels import services
from notices.channels.outcomes import tell_outcomes
from notices.channels.sending import NOTICES, _page
from notices.channels.services import CHANNELS
from notices.channels.tests.conftest import add_incidents, send_due, tell
from notices.models import Channel, Incident, Notice
from notices.states import SubjectType
from pipedai.outgoing.due import claim_due
from pipedai.sql import execute
from testing.probes.plans import explained, prefer_indexes
from testing.processes.webhook_receiver import receiving
from testing.world.cast import TEST_ACTOR
from testing.world.channels import add_channel
from testing.world.copied_rows import copy_row
from testing.world.runs import QUESTION, RULES, Runs
from triggers.models import Trigger

SECRET = "whsec_cGxhbnRlZCBzZWNyZXQgb2YgYSBjaGFubmVs"


@pytest.fixture
def receiver(settings):
    settings.WEBHOOK_ALLOWED_NETWORKS = ["127.0.0.0/8"]
    with receiving() as hooks:
        yield hooks


def statuses():
    return list(Notice.objects.order_by("id").values_list("status", flat=True))


def test_a_webhook_gets_the_incident_signed(cast, receiver, open_incidents):
    add_channel(cast, "webhook", url=receiver.url(), secret=SECRET)
    (incident_id,) = open_incidents()
    send_due(datetime.now(UTC) + timedelta(minutes=1))
    (received,) = receiver.received
    headers = {name.lower(): value for name, value in received.headers.items()}
    body = Webhook(SECRET).verify(received.body, headers)
    assert headers["x-pipedai-signature"].startswith("sha256=")
    notice = Notice.objects.get()
    assert headers["webhook-id"] == f"msg_{notice.id.hex}"
    assert list(body) == [
        "id", "event", "at", "environmentId", "subject", "incident", "run", "approval", "link",
    ]  # fmt: skip
    assert body["event"] == "trigger_failing"
    assert body["subject"]["name"] == "Nightly report"
    assert body["incident"]["id"] == str(incident_id)
    assert body["at"] == body["incident"]["openedAt"]
    assert body["run"] is None
    assert notice.status == "delivered"


def test_slack_gets_one_text_in_which_a_name_makes_no_link(cast, receiver, open_incidents):
    add_channel(cast, "slack", url=receiver.url())
    open_incidents(name="<https://evil.example|click> & <!channel> @all\n[x](evil.example)")
    send_due()
    (received,) = receiver.received
    body = json.loads(received.body)
    assert list(body) == ["text"]
    assert body["text"].startswith(
        "Trigger &lt;https[:]//evil[.]example|click&gt; &amp; &lt;!channel&gt; @\u200ball "
        "[x](evil[.]example) is failing ("
    )
    assert "webhook-signature" not in {name.lower() for name in received.headers}


def test_a_notice_that_an_older_release_queued_without_newer_keys_is_sent(
    cast, mail_server, receiver
):
    for kind, target in (
        ("email", {}),
        ("slack", {"url": receiver.url()}),
        ("webhook", {"url": receiver.url()}),
    ):
        add_channel(cast, kind, **target)
    Runs.of(cast).ended("failed", faultClass="client")
    for notice in Notice.objects.all():
        body = json.loads(notice.body)
        for newer in ("retry", "failuresInRow"):
            del body["run"][newer]
        del body["approval"]
        Notice.objects.filter(id=notice.id).update(body=json.dumps(body))
    send_due()
    assert {*Notice.objects.values_list("status", flat=True)} == {"delivered"}
    assert (len(mail_server.received), len(receiver.received)) == (1, 2)


def test_each_message_ends_with_a_link_to_the_page_that_it_is_about(cast, receiver, settings):
    settings.PUBLIC_URL = "https://api.example.com"
    channel = add_channel(cast, "slack", url=receiver.url())
    ids = add_incidents(cast, len(SubjectType))
    runs = Runs.of(cast)
    run_id = runs.ended("failed")
    runs.ended()
    for id_, subject_type in zip(ids, SubjectType.values, strict=True):
        Incident.objects.filter(id=id_).update(subject_type=subject_type)
    subjects = dict(Incident.objects.filter(id__in=ids).values_list("subject_type", "subject_id"))
    tell(cast, ids)
    services.test_channel(channel_id=channel.id, actor=TEST_ACTOR)
    send_due()
    links = [json.loads(each.body)["text"].splitlines()[-1] for each in receiver.received]
    assert sorted(links) == sorted(
        f"https://api.example.com/console/{path}"
        for path in (
            f"triggers/{subjects['trigger']}",
            f"machines/{subjects['worker']}",
            f"pools/{subjects['pool']}",
            f"environments/{cast.environment.id}/money",
            f"connections/{subjects['connection']}",
            f"runs/{run_id}",
            f"triggers/{runs.trigger_id}",
            f"channels/{channel.id}",
        )
    )


def test_a_digest_leads_to_all_that_needs_somebody(cast):
    row = {"event": "channel.digest", "body": "{}", "environment_id": cast.environment.id}
    assert _page(row).endswith(f"/console/environments/{cast.environment.id}/attention")


def test_a_mail_is_plain_and_names_of_others_make_no_links(
    cast, mail_server, open_incidents, settings
):
    settings.DASHBOARD_URL = "https://app.example.com"
    add_channel(cast, "email")
    open_incidents(name="https://evil.example\u2028Bcc: x@evil.example <b>")
    send_due()
    (mail,) = mail_server.received
    assert mail.recipients == [cast.admin.email]
    assert mail.message["Subject"].startswith(
        "Trigger https[:]//evil[.]example Bcc: x@evil[.]example"
    )
    assert mail.message["Bcc"] is None
    assert "https[:]//evil[.]example" in mail.part("plain")
    assert "The last run failed or timed out." in mail.part("plain")
    assert "<b>" not in mail.part("html")
    subject_id = Incident.objects.get().subject_id
    for part in ("plain", "html"):
        assert f"https://app.example.com/triggers/{subject_id}" in mail.part(part)


def test_a_run_that_waits_for_a_decision_is_told_with_the_page_to_decide_on(
    cast, mail_server, receiver
):
    """The arguments of the call go nowhere."""
    for kind, more in (
        ("email", {}),
        ("webhook", {"url": receiver.url()}),
        ("slack", {"url": receiver.url()}),
    ):
        add_channel(cast, kind, events=["approval_requested"], **more)
    Trigger.objects.filter(id=cast.trigger_id).update(timezone="Asia/Kolkata")
    runs = Runs(cast, cast.trigger_id)
    question = {**QUESTION, "tool": "mail.to://evil.example"}
    run_id = runs.running()
    Trigger.objects.filter(id=cast.trigger_id).update(approvals=[RULES[0] | {"tools": "*"}])
    runs.ask(run_id, approval=question)
    approval_id = runs.approval_of(run_id)["id"]
    send_due()
    (mail,) = mail_server.received
    text = " ".join(mail.part("plain").split())
    assert mail.message["Subject"].startswith("Trigger Nightly report asks for a decision")
    assert f"/console/approvals/{approval_id}" in text
    assert "Nothing is done until somebody approves the call." in text
    assert "Wants to call: mail[.]to[:]//evil[.]example Can be decided until:" in text
    assert "17:40 IST Who may decide: operator or above" in text
    bodies = [json.loads(received.body) for received in receiver.received]
    slack = next(body["text"] for body in bodies if "text" in body)
    assert slack.endswith(f"/console/approvals/{approval_id}")
    told = next(body for body in bodies if "event" in body)
    assert (told["event"], told["run"]["status"]) == ("approval_requested", "waiting")
    assert (told["approval"]["id"], told["approval"]["approverRole"]) == (
        str(approval_id),
        "operator",
    )
    assert "ada@example.com" not in text + json.dumps(bodies)


def test_a_mail_of_a_recovery_says_how_long_it_took_in_the_triggers_zone(cast, mail_server):
    add_channel(cast, "email")
    Trigger.objects.filter(id=cast.trigger_id).update(timezone="Asia/Kolkata")
    opened_at = datetime(2026, 11, 26, 22, 19, 30, 123456, tzinfo=UTC)
    (incident_id,) = add_incidents(cast)
    Incident.objects.filter(id=incident_id).update(
        subject_id=cast.trigger_id,
        opened_at=opened_at,
        closed_at=opened_at + timedelta(hours=2, minutes=5),
    )
    tell(cast, [incident_id], "recovered")
    send_due()
    (mail,) = mail_server.received
    assert (
        mail.part("plain")
        .replace("\r\n", "\n")
        .startswith(
            "Trigger Nightly report succeeds again. It was failing for 2 hours 5 minutes, from"
            " Fri 27 Nov 2026, 03:49 IST until Fri 27 Nov 2026, 05:54 IST.\n"
            "\n"
            f"Environment: {cast.environment.name}\n"
            "What had happened: The last run failed or timed out.\n"
        )
    )


def test_a_recovery_and_a_reminder_are_told(cast, receiver, open_incidents):
    add_channel(cast, "slack", url=receiver.url())
    (incident_id,) = open_incidents()
    tell(cast, [incident_id], "reminder")
    Incident.objects.filter(id=incident_id).update(closed_at="2100-01-01T00:00:00Z")
    tell(cast, [incident_id], "recovered")
    send_due()
    texts = sorted(
        json.loads(received.body)["text"].partition(" (")[0] for received in receiver.received
    )
    assert any("What had happened: " in received.body.decode() for received in receiver.received)
    assert texts == [
        "Still open: Trigger Nightly report is failing",
        "Trigger Nightly report is failing",
        "Trigger Nightly report succeeds again",
    ]
    assert Incident.objects.get().notice_count == 3


def test_a_channel_gets_only_what_it_asked_for(cast, open_incidents):
    add_channel(cast, events=["worker_offline"])
    add_channel(cast, enabled=False)
    open_incidents()
    assert statuses() == []


def test_an_ended_run_is_told_to_webhooks_that_want_it(cast, receiver):
    add_channel(cast, "webhook", url=receiver.url(), events=["run.ended"])
    run_id = Runs.of(cast).ended(shortMessage="All is well.", output={"rows": [1, "é"], "of": None})
    tell_outcomes()
    assert "rows" not in Notice.objects.get().body
    send_due()
    (received,) = receiver.received
    body = json.loads(received.body)
    assert (body["event"], body["incident"]) == ("run.ended", None)
    run = body["run"]
    assert (run["id"], run["attempt"], run["willRetry"]) == (str(run_id), 1, False)
    assert run["triggerName"] == body["subject"]["name"] == "Nightly report"
    assert run["output"] == {"rows": [1, "é"], "of": None}


def test_a_failing_run_tells_its_incident_with_the_run(cast, receiver):
    add_channel(cast, "webhook", url=receiver.url())
    run_id = Runs.of(cast).ended("failed")
    send_due()
    (received,) = receiver.received
    run = json.loads(received.body)["run"]
    assert (run["id"], run["output"]) == (str(run_id), None)


@pytest.mark.parametrize("change", ["deleted", "disabled"])
def test_what_is_pending_when_a_channel_goes_off_is_given_up(
    cast, receiver, open_incidents, change
):
    channel = add_channel(cast, "slack", url=receiver.url())
    open_incidents()
    if change == "deleted":
        CHANNELS.delete(channel.id, actor=TEST_ACTOR)
    else:
        CHANNELS.update(channel.id, actor=TEST_ACTOR, values={"enabled": False})
    send_due()
    assert receiver.received == []
    assert statuses() == ["dead"]


def test_a_dead_channel_is_shown_and_works_again_after_a_delivery(cast, receiver, open_incidents):
    channel = add_channel(cast, "slack", url=receiver.url())
    open_incidents()
    receiver.answer(410)
    send_due()
    channel.refresh_from_db()
    assert channel.failing_since is not None
    assert channel.last_error == "answered 410"
    failed = AuditEntry.objects.get(action="notice.failed")
    assert failed.metadata["channelId"] == str(channel.id)
    open_incidents()
    send_due()
    assert Channel.objects.filter(failing_since=None, last_error=None).exists()


def test_the_url_and_the_secret_are_in_no_table(cast, receiver, open_incidents):
    add_channel(cast, "webhook", url=receiver.url("/planted-path-of-a-channel"), secret=SECRET)
    row = Channel.objects.get()
    assert row.url is not None
    assert b"planted" not in bytes(row.url)
    assert row.host == "127.0.0.1"


@pytest.mark.parametrize("url", ["http://127.0.0.1/", "http://169.254.169.254/", "http://[::1]/"])
def test_a_url_into_our_network_is_refused(cast, url):
    channel = add_channel(cast)
    client = cast.client(cast.admin)
    changed = client.patch(f"/api/v1/channels/{channel.id}", {"url": url})
    assert "url" in changed.json()["details"]["fieldErrors"]


def test_a_host_that_moved_into_our_network_gets_nothing(cast, receiver, settings):
    channel = add_channel(cast, "webhook", url=receiver.url(host="localhost"))
    settings.WEBHOOK_ALLOWED_NETWORKS = []
    client = cast.client(cast.admin)
    assert client.post(f"/api/v1/channels/{channel.id}/test", {}).status_code == 201
    (answer, *_) = send_due(datetime.now(UTC) + timedelta(minutes=1))
    assert answer.status_code is None
    assert receiver.received == []


def test_a_claim_reads_its_notices_by_their_ids_also_after_a_burst(cast, open_incidents):
    add_channel(cast, "webhook")
    # PostgreSQL would expect no rows in the pages that rows of other tests have left.
    execute("TRUNCATE notice CASCADE", {})
    open_incidents()
    execute("ANALYZE notice", {})
    copy_row(Notice, Notice.objects.get().id, 2_000)
    prefer_indexes()
    with explained("WITH free") as plans:
        claim_due(NOTICES, room=4, busy={}, per_host=4, now=datetime(2100, 1, 1, tzinfo=UTC))
    assert plans.rows_read("notice") < 50
