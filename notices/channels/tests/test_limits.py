"""A storm is one digest, and what can't be sent waits in bounded numbers."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from notices.channels import queueing
from notices.channels.tests.conftest import send_due
from notices.incidents import Finding, change_incidents
from notices.models import Channel, Incident, Notice
from notices.states import Kind
from pipedai.api.renderers import iso_time
from pipedai.ids import new_id
from testing.probes.statement_count import counted
from testing.processes.webhook_receiver import receiving
from testing.world.cast import make_cast
from testing.world.channels import add_channel
from testing.world.incidents import open_incident

NOON = datetime(2100, 1, 1, 12, tzinfo=UTC)


def minutes(count):
    return NOON + timedelta(minutes=count)


def counts():
    rows = Notice.objects.values_list("event", "status")
    return {
        "single": sum(event != "channel.digest" and status != "digested" for event, status in rows),
        "digested": sum(status == "digested" for _, status in rows),
        "digests": sum(event == "channel.digest" for event, _ in rows),
    }


def test_a_storm_of_incidents_is_twenty_mails_and_one_digest(cast, mail_server, open_incidents):
    add_channel(cast, "email")
    open_incidents(300, now=NOON)
    open_incidents(100, now=minutes(30))
    assert counts() == {"single": 20, "digested": 380, "digests": 1}
    send_due(minutes(59))
    assert len(mail_server.received) == 20
    send_due(minutes(61))
    digest = mail_server.received[-1]
    assert len(mail_server.received) == 21
    assert digest.message["Subject"].startswith("380 notices were held back")
    assert digest.part("plain").count("Trigger Nightly report is failing") == 50
    assert "and 330 more" in digest.part("plain")
    assert set(Incident.objects.values_list("notice_count", flat=True)) == {1}


def test_an_hour_later_the_channel_sends_single_notices_again(cast, open_incidents):
    add_channel(cast, "slack")
    open_incidents(25, now=NOON)
    (digest,) = Notice.objects.filter(event="channel.digest")
    assert digest.send_at == minutes(60)
    # A digest that no sender has claimed yet goes on gathering.
    open_incidents(1, now=minutes(61))
    assert counts() == {"single": 20, "digested": 6, "digests": 1}
    Notice.objects.exclude(status="digested").update(
        status="delivered", next_attempt_at=None, delivered_at=minutes(62)
    )
    open_incidents(30, now=minutes(63))
    assert counts() == {"single": 39, "digested": 17, "digests": 2}


def test_a_digest_that_is_being_sent_gathers_no_more(cast, open_incidents):
    add_channel(cast, "slack")
    open_incidents(21, now=NOON)
    Notice.objects.filter(event="channel.digest").update(next_attempt_at=minutes(70))
    open_incidents(1, now=minutes(1))
    first, second = Notice.objects.filter(event="channel.digest").order_by("id")
    assert json.loads(first.body)["digest"]["count"] == 1
    assert json.loads(second.body)["digest"]["count"] == 1


def test_while_the_mail_server_takes_no_connection_few_notices_wait_and_then_go_out(
    cast, mail_server, settings, open_incidents
):
    add_channel(cast, "email")
    settings.EMAIL_URL = "smtp://127.0.0.1:1"
    for hour in range(6):
        open_incidents(30, now=minutes(60 * hour))
        send_due(minutes(60 * hour))
    waiting = Notice.objects.filter(status="pending").count()
    assert waiting <= 20 + 6
    settings.EMAIL_URL = mail_server.url()
    send_due(NOON + timedelta(days=1))
    assert len(mail_server.received) == waiting
    assert not Notice.objects.filter(status="pending").exists()


def test_each_address_of_a_channel_has_a_limit_of_its_own(cast, mail_server, open_incidents):
    add_channel(cast, "email", emails=[cast.admin.email, cast.owner.email])
    open_incidents(22, now=NOON)
    assert counts() == {"single": 40, "digested": 4, "digests": 2}


def test_what_is_over_the_bound_of_an_environment_is_told_by_one_notice_of_each_channel(
    cast, monkeypatch, open_incidents
):
    monkeypatch.setattr(queueing, "MAX_PENDING", 6)
    channels = [add_channel(cast, "webhook") for _ in range(2)]
    other = add_channel(make_cast(), "webhook")
    for n in range(3):
        open_incidents(2, now=minutes(n))
    # Four of the first incidents, one of the second for each channel, and what says that there were more.
    told = Notice.objects.filter(channel__in=channels)
    assert told.exclude(event="channel.digest").count() == 6
    for channel in channels:
        digest = told.get(channel=channel, event="channel.digest")
        said = json.loads(digest.body)["digest"]
        assert (said["count"], said["since"]) == (3, iso_time(minutes(1)))
        assert len(said["lines"]) == 3
        assert digest.next_attempt_at == minutes(2)
        channel.refresh_from_db()
        assert channel.dropped_count == 3
    assert Incident.objects.count() == 6, "attention has all"
    assert not Notice.objects.filter(channel=other).exists()


def test_telling_takes_as_many_statements_for_one_as_for_many(cast, mail_server, open_incidents):
    for kind in ("email", "slack", "webhook"):
        add_channel(cast, kind)
    with counted() as one:
        open_incidents(1, now=NOON)
    with counted() as many:
        open_incidents(15, now=NOON)
    assert len(one) == len(many)


def test_a_channel_that_is_dead_for_a_week_keeps_nobody_else_waiting(
    cast, settings, open_incidents
):
    settings.WEBHOOK_ALLOWED_NETWORKS = ["127.0.0.0/8"]
    with receiving() as good:
        dead = add_channel(cast, "slack", url="http://127.0.0.1:1/")
        add_channel(cast, "slack", url=good.url())
        for day in range(7):
            open_incidents(1, now=NOON + timedelta(days=day))
            for hours in (0, 1, 3, 9, 23):
                send_due(NOON + timedelta(days=day, hours=hours))
        assert len(good.received) == 7
    dead.refresh_from_db()
    assert dead.last_error == "could not connect"
    assert Notice.objects.filter(channel=dead, status="pending").count() <= 2
    assert Channel.objects.filter(failing_since__isnull=False).count() == 1


@pytest.mark.parametrize("event", ["run.ended", "trigger_failing"])
def test_without_channels_nothing_is_written(cast, open_incidents, event):
    open_incidents(3)
    assert counts() == {"single": 0, "digested": 0, "digests": 0}


def test_channels_are_locked_once_and_after_all_incidents(cast):
    """Two transactions that lock them in turns would wait for each other."""
    add_channel(cast)
    over = new_id()
    open_incident(cast, subject_id=over)
    found = Finding(cast.environment.id, new_id(), "Nightly report", "It broke.")
    with counted() as statements:
        change_incidents(Kind.TRIGGER_FAILING, begun=[found], recovered=[over], now=NOON)
    last_change = max(
        n
        for n, sql in enumerate(statements.sql)
        if "INSERT INTO incident" in sql or "closed_at =" in sql
    )
    locks = [n for n, sql in enumerate(statements.sql) if "FROM channel" in sql]
    assert len(locks) == 1
    assert locks[0] > last_change
    assert Notice.objects.filter(send_at=NOON).count() == 2
