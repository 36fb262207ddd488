"""Channels under fire: storms from many sides, two senders, a deletion while it sends, two who add addresses."""

from dataclasses import replace
from functools import partial

from django.db import transaction

from notices.channels.consent import refuse_address
from notices.channels.sending import NOTICES
from notices.channels.services import CHANNELS
from notices.channels.tests.conftest import LATE, add_incidents, send_due, tell
from notices.models import AskedAddress, Channel, Incident, Notice, NoticeAttempt, RefusedAddress
from pipedai.api.errors import ApiError
from pipedai.outgoing import attempts
from pipedai.outgoing.due import claim_due
from testing.processes.racing import Started, accepted, at_once
from testing.processes.webhook_receiver import receiving
from testing.world.cast import TEST_ACTOR
from testing.world.channels import add_channel, asked_token


def test_incidents_that_many_tell_at_once_are_twenty_notices_and_one_digest(committed_cast):
    add_channel(committed_cast)
    ids = add_incidents(committed_cast, 48)
    parts = [ids[n::4] for n in range(4)]
    accepted(at_once(*(lambda part=part: tell(committed_cast, part) for part in parts)))
    assert Notice.objects.exclude(status="digested").exclude(event="channel.digest").count() == 20
    digest = Notice.objects.get(event="channel.digest")
    assert Notice.objects.filter(digest_id=digest.id).count() == 28
    assert '"count":28' in digest.body
    assert set(Incident.objects.values_list("notice_count", flat=True)) == {1}


def test_nobody_waits_for_a_channel_that_somebody_is_changing(committed_cast):
    channel = add_channel(committed_cast)
    with transaction.atomic():
        CHANNELS.update(channel.id, values={"name": "Renamed"}, actor=TEST_ACTOR)
        # The call would wait until its time-out if the change kept it waiting.
        accepted(at_once(lambda: tell(committed_cast, add_incidents(committed_cast, 1))))
    assert Notice.objects.get().channel_id == channel.id


def test_nobody_waits_for_a_changing_channel_with_too_many_pending_notices(
    committed_cast, monkeypatch
):
    monkeypatch.setattr("notices.channels.queueing.MAX_PENDING", 1)
    channel = add_channel(committed_cast, "webhook", url="https://hooks.example/x")
    tell(committed_cast, add_incidents(committed_cast, 1))
    with transaction.atomic():
        CHANNELS.update(channel.id, values={"name": "Renamed"}, actor=TEST_ACTOR)
        accepted(at_once(lambda: tell(committed_cast, add_incidents(committed_cast, 1))))
    tell(committed_cast, add_incidents(committed_cast, 1))
    digest = Notice.objects.get(event="channel.digest")
    assert '"count":2' in digest.body
    channel.refresh_from_db()
    # The one that was left out while somebody changed the channel is not counted there.
    assert channel.dropped_count == 1


def test_a_digest_that_is_claimed_while_it_gathers_loses_nothing(committed_cast):
    add_channel(committed_cast)
    tell(committed_cast, add_incidents(committed_cast, 21))
    more = add_incidents(committed_cast, 1)

    with transaction.atomic():
        claimed = claim_due(NOTICES, room=100, busy={}, per_host=100, now=LATE)
        telling = Started(lambda: tell(committed_cast, more))
        telling.wait_until_blocked()
    accepted([telling.answer()])
    bodies = {row["id"]: row["body"] for row in claimed if row["event"] == "channel.digest"}
    bodies |= {
        row.id: row.body
        for row in Notice.objects.filter(event="channel.digest")
        if row.id not in bodies
    }
    told = sum(body.count("Trigger Nightly report is failing") for body in bodies.values())
    assert told == Notice.objects.filter(status="digested").count()


def test_two_senders_send_each_notice_once(committed_cast, settings):
    settings.WEBHOOK_ALLOWED_NETWORKS = ["127.0.0.0/8"]
    with receiving() as receiver:
        add_channel(committed_cast, "webhook", url=receiver.url())
        tell(committed_cast, add_incidents(committed_cast, 12))
        at_once(send_due, send_due)
        assert len(receiver.received) == 12
    assert NoticeAttempt.objects.count() == 12


def test_a_channel_that_is_deleted_while_it_sends_is_gone_and_nothing_breaks(
    committed_cast, settings
):
    settings.WEBHOOK_ALLOWED_NETWORKS = ["127.0.0.0/8"]
    with receiving() as receiver:
        channel = add_channel(committed_cast, url=receiver.url())
        tell(committed_cast, add_incidents(committed_cast, 2))
        (first, second) = claim_due(NOTICES, room=100, busy={}, per_host=100, now=LATE)
        answer = attempts.send(NOTICES, first)
        accepted(
            at_once(
                lambda: CHANNELS.delete(channel.id, actor=TEST_ACTOR),
                lambda: attempts.record(NOTICES, [(first, answer)], now=LATE),
                lambda: tell(committed_cast, add_incidents(committed_cast, 1)),
            )
        )
        # It was claimed before the deletion, so it still goes out; what is claimed later does not.
        attempts.record(NOTICES, [(second, attempts.send(NOTICES, second))], now=LATE)
        sent = len(receiver.received)
        send_due()
        assert len(receiver.received) == sent
    assert not Notice.objects.filter(status="pending").exists()
    assert Channel.objects.get().url is None


def test_two_who_add_addresses_at_once_stay_within_the_day(committed_cast, ceilings, mail_server):
    ceilings["newAddresses"] = 3

    def add(names):
        return add_channel(
            committed_cast, "email", emails=[f"{name}@example.com" for name in names]
        )

    answers = at_once(lambda: add("ab"), lambda: add("cd"))
    assert sum(isinstance(answer, ApiError) for answer in answers) == 1
    assert AskedAddress.objects.filter(address__regex="^[abcd]@").count() == 2


def test_an_owner_who_refuses_by_the_links_of_two_environments_at_once_is_heard(committed_cast):
    address = "ada@example.com"
    here = asked_token(committed_cast, address)
    there = replace(committed_cast, environment=committed_cast.strange_environment)
    tokens = (here, asked_token(there, address))
    refusals: list[Started[None]] = []
    with transaction.atomic():
        # Neither goes on before both have come as far as the row that says so of the whole service.
        RefusedAddress.objects.create(address=address)
        for token in tokens:
            refuse = partial(refuse_address, token=token, actor=TEST_ACTOR)
            refusals.append(Started(refuse))
            refusals[-1].wait_until_blocked()
        transaction.set_rollback(True)
    accepted([each.answer() for each in refusals])
    assert not AskedAddress.objects.filter(refused_at__isnull=True).exists()
    assert RefusedAddress.objects.filter(address=address).exists()
