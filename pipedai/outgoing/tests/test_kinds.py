"""A kind of messages that an app registers is sent by the machinery of webhooks, and delays no other kind."""

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connection, models
from django.test.utils import isolate_apps

from pipedai.ids import new_id
from pipedai.outgoing import attempts, pool
from pipedai.outgoing.attempts import BACKOFF_SECONDS
from pipedai.outgoing.due import CLAIM_SECONDS, Memory, Taker, claim_due, taker_of
from pipedai.outgoing.kinds import (
    CannotSend,
    Kind,
    NeverSend,
    OutboxRow,
    SendAttempt,
    attempt_constraints,
    outbox_constraints,
    outbox_indexes,
)
from pipedai.outgoing.mails import Mail, mail_host
from pipedai.outgoing.pool import Senders, register_kind, registered_kinds
from pipedai.sql import execute
from testing.probes.plans import explained, prefer_indexes
from testing.processes.mail_receiver import MailReceiver, receiving_mail
from testing.processes.webhook_receiver import receiving
from testing.world.cast import TEST_ACTOR
from testing.world.copied_rows import copy_row
from triggers.models import Delivery
from triggers.webhooks.sending import WEBHOOKS, send_test

NOW = datetime(2100, 1, 1, tzinfo=UTC)


def message_of(row: dict[str, Any]) -> Mail:
    if row["body"] == "later":
        raise CannotSend("the key is away")
    if row["body"] == "bug":
        raise KeyError("no such template")
    if row["body"] == "never":
        raise NeverSend("its token has expired")
    return Mail(row["address"], "Hi", row["body"], row["body"])


@pytest.fixture
def receiver(settings) -> Iterator[MailReceiver]:
    with receiving_mail() as mail_receiver:
        settings.EMAIL_URL = mail_receiver.url()
        yield mail_receiver


@isolate_apps()
def make_letters() -> SimpleNamespace:
    """Makes the tables of a kind of mails that belong to no environment, and returns the kind with its models."""

    class Letter(OutboxRow):
        address = models.CharField(max_length=254)
        body = models.TextField()

        class Meta:
            app_label = "pipedai"
            db_table = "letter"
            constraints = outbox_constraints()
            indexes = outbox_indexes(of_environments=False)

    class LetterAttempt(SendAttempt):
        pk = models.CompositePrimaryKey("letter_id", "n")
        letter = models.ForeignKey(Letter, on_delete=models.PROTECT, related_name="attempts")

        class Meta:
            app_label = "pipedai"
            db_table = "letter_attempt"
            constraints = attempt_constraints("letter_attempt_has_an_end")

    with connection.schema_editor() as editor:
        editor.create_model(Letter)
        editor.create_model(LetterAttempt)
    told: list[Any] = []
    kind = Kind(
        "letter", Letter, LetterAttempt, message_of, told.extend, reads="length(d.body) AS long"
    )

    def add(body: str = "Hello", address: str = "ada@example.com", **values: Any) -> Any:
        row = Letter(host=mail_host(address), address=address, body=body, **values)
        row.save(force_insert=True)
        return row

    def attempt(now: datetime = NOW) -> Any:
        (row,) = claim_due(kind, room=8, busy={}, per_host=4, now=now)
        answer = attempts.send(kind, row)
        attempts.record(kind, [(row, answer)], now=now)
        return answer

    return SimpleNamespace(
        kind=kind, rows=Letter, kept=LetterAttempt, told=told, add=add, attempt=attempt
    )


@pytest.fixture
def letters(db) -> SimpleNamespace:
    return make_letters()


def shown(letter: Any) -> tuple[str, int]:
    letter.refresh_from_db()
    return letter.status, letter.attempt_count


def test_a_mail_is_sent_kept_and_told(letters, receiver, capfd):
    letter = letters.add()
    letters.attempt()
    assert shown(letter) == ("delivered", 1)
    assert (letter.delivered_at, letter.next_attempt_at) == (NOW, None)
    kept = letters.kept.objects.get()
    assert (kept.letter_id, kept.n, kept.status_code, kept.error) == (letter.id, 1, 250, None)
    (told,) = letters.told
    assert (told.status, told.count, told.row["long"]) == ("delivered", 1, 5)
    assert letter.id.hex in receiver.received[0].message["Message-ID"]
    logged = "".join(capfd.readouterr())
    assert "letter.sent" in logged
    assert "ada@example.com" not in logged


def test_a_mail_whose_sender_died_before_recording_comes_again_and_can_be_recognised(
    letters, receiver
):
    letter = letters.add()
    (row,) = claim_due(letters.kind, room=8, busy={}, per_host=4, now=NOW)
    first = attempts.send(letters.kind, row)
    assert claim_due(letters.kind, room=8, busy={}, per_host=4, now=NOW) == []
    letters.attempt(NOW + timedelta(seconds=CLAIM_SECONDS))
    attempts.record(letters.kind, [(row, first)], now=NOW)
    assert shown(letter) == ("delivered", 1)
    ids = [mail.message["Message-ID"] for mail in receiver.received]
    assert len(ids) == 2
    assert ids[0] == ids[1]


def test_a_greylisted_mail_is_tried_again_and_given_up_after_the_last_attempt(letters, receiver):
    letter, now = letters.add(), NOW
    for seconds in (*BACKOFF_SECONDS, None):
        receiver.answers.append("450 4.2.0 greylisted")
        letters.attempt(now)
        letter.refresh_from_db()
        if seconds is None:
            break
        pause = (letter.next_attempt_at - now).total_seconds()
        assert seconds * 0.8 <= pause <= seconds * 1.2
        now = letter.next_attempt_at
    assert shown(letter) == ("dead", 7)
    assert [told.status for told in letters.told] == ["pending"] * 6 + ["dead"]


def test_a_refused_mail_is_dead_at_once(letters, receiver):
    letter = letters.add()
    receiver.answers.append("550 5.1.1 no such user")
    letters.attempt()
    assert shown(letter) == ("dead", 1)


def test_while_our_mail_server_is_away_mails_wait_and_then_go_out(letters, settings, receiver):
    letter, now = letters.add(created_at=NOW), NOW
    settings.EMAIL_URL = "smtp://127.0.0.1:1"
    for _ in range(12):
        letters.attempt(now)
        letter.refresh_from_db()
        assert letter.status == "pending"
        assert letter.next_attempt_at - now <= timedelta(minutes=36)
        now = letter.next_attempt_at
    settings.EMAIL_URL = receiver.url()
    letters.attempt(now)
    assert shown(letter) == ("delivered", 13)


def test_waiting_for_our_mail_server_uses_up_no_attempts(letters, settings, receiver):
    letter, now = letters.add(created_at=NOW), NOW
    settings.EMAIL_URL = "smtp://127.0.0.1:1"
    for _ in range(8):
        letters.attempt(now)
        letter.refresh_from_db()
        now = letter.next_attempt_at
    settings.EMAIL_URL = receiver.url()
    for seconds in BACKOFF_SECONDS:
        receiver.answers.append("450 4.7.1 too many mails")
        letters.attempt(now)
        letter.refresh_from_db()
        pause = (letter.next_attempt_at - now).total_seconds()
        assert seconds * 0.8 <= pause <= seconds * 1.2
        now = letter.next_attempt_at
    receiver.answers.append("450 4.7.1 too many mails")
    letters.attempt(now)
    assert shown(letter) == ("dead", 15)


def test_after_five_days_without_a_mail_server_a_mail_is_given_up(letters, settings):
    letter = letters.add(created_at=NOW - timedelta(days=5, minutes=1))
    settings.EMAIL_URL = "smtp://127.0.0.1:1"
    letters.attempt()
    assert shown(letter) == ("dead", 1)


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ("later", "pending", "the key is away"),
        ("never", "dead", "its token has expired"),
        ("bug", "pending", "the message could not be made"),
    ],
)
def test_a_message_that_cannot_be_made_waits_or_is_dead(letters, receiver, body, status, error):
    letter = letters.add(body)
    letters.attempt()
    assert shown(letter) == (status, 1)
    assert letters.kept.objects.get().error == error
    assert receiver.received == []


def test_what_follows_an_attempt_is_in_its_transaction(letters, receiver):
    letter = letters.add()

    def fail(recorded: Any) -> None:
        raise RuntimeError("no")

    failing = Kind("letter", letters.rows, letters.kept, message_of, fail)
    (row,) = claim_due(failing, room=1, busy={}, per_host=1, now=NOW)
    with pytest.raises(RuntimeError):
        attempts.record(failing, [(row, attempts.send(failing, row))], now=NOW)
    assert shown(letter) == ("pending", 0)
    assert not letters.kept.objects.exists()


def test_rows_of_nobody_are_taken_in_order_up_to_the_share_of_their_domain(letters):
    due = [letters.add(next_attempt_at=NOW - timedelta(minutes=n)) for n in range(6)]
    claimed = claim_due(letters.kind, room=8, busy={}, per_host=4, now=NOW)
    assert {row["id"] for row in claimed} == {row.id for row in due[2:]}
    assert claim_due(letters.kind, room=1, busy={}, per_host=4, now=NOW)[0]["id"] == due[1].id


def many(letters, *hosts, count=500, **values):
    letters.rows.objects.bulk_create(
        letters.rows(host=host, address="", body="", next_attempt_at=NOW, **values)
        for host in hosts
        for _ in range(count)
    )
    execute("ANALYZE letter", {})


@pytest.mark.parametrize("hosts", [["@slow.example"], [f"@{n}.slow.example" for n in range(20)]])
def test_many_mails_to_one_domain_keep_a_mail_to_another_waiting_for_no_turn(letters, hosts):
    many(letters, *hosts, count=60 // len(hosts))
    stranger = letters.add(next_attempt_at=NOW)
    claimed = claim_due(letters.kind, room=8, busy={}, per_host=4, memory=Memory(), now=NOW)
    assert stranger.id in {row["id"] for row in claimed}
    assert len(claimed) == min(len(hosts), 4) + 1  # Each of the hosts is unproven.


def test_second_attempts_leave_a_share_for_a_first_one(letters):
    busy: dict[Taker, int] = {}
    for n in range(12):
        letters.add(address=f"ada@stalls{n}.example", attempt_count=1, next_attempt_at=NOW)
    for _ in range(3):
        rows = claim_due(
            letters.kind, room=8 - len(busy), busy=busy, per_host=4, memory=Memory(), now=NOW
        )
        busy |= {taker_of(row): 1 for row in rows}
    # Unproven hosts have three quarters of the shares.
    assert len(busy) == 5
    stranger = letters.add(next_attempt_at=NOW)
    rows = claim_due(letters.kind, room=3, busy=busy, per_host=4, memory=Memory(), now=NOW)
    assert [row["id"] for row in rows] == [stranger.id]


def test_a_look_reads_few_rows_however_many_wait_for_domains_that_stall(letters):
    many(letters, "@slow.example", "@slower.example")
    busy = {Taker(new_id(), new_id(), host): 4 for host in ("@slow.example", "@slower.example")}
    with explained("WITH RECURSIVE pair") as plans:
        assert claim_due(letters.kind, room=4, busy=busy, per_host=4, now=NOW) == []
    assert plans.rows_read("letter") <= 4


def test_a_claim_reads_its_mails_by_their_ids_also_after_a_burst(letters):
    letters.add()
    execute("ANALYZE letter", {})
    copy_row(letters.rows, letters.rows.objects.get().id, 2_000)
    prefer_indexes()
    with explained("WITH free") as plans:
        claim_due(letters.kind, room=4, busy={}, per_host=4, now=NOW)
    assert plans.rows_read("letter") < 50


def test_a_name_is_registered_once():
    (kind,) = [kind for kind in registered_kinds() if kind.name == "webhook"]
    assert kind is WEBHOOKS
    with pytest.raises(ValueError, match="webhook"):
        register_kind(kind)


def test_stalling_recipients_and_webhooks_delay_nobody_else(committed_cast, receiver, settings):
    settings.WEBHOOK_ALLOWED_NETWORKS = ["127.0.0.0/8"]
    letters = make_letters()
    for _ in range(60):
        letters.add(address="ada@stalls.example")
    receiver.answers += ["stall"]
    mails, webhooks = Senders(letters.kind), Senders(replace(WEBHOOKS, shares=2, per_host=1))
    with receiving() as hooks:
        trigger_id = committed_cast.add_trigger(webhook_url=hooks.url())
        assert mails.top_up() == 1
        until(lambda: not receiver.answers)
        assert mails.top_up() == 0
        send_test(trigger_id=trigger_id, actor=TEST_ACTOR)
        assert webhooks.top_up() == 1
        until(lambda: Delivery.objects.get().status == "delivered")
        stranger = letters.add()
        assert mails.top_up() == 1
        until(lambda: shown(stranger) == ("delivered", 1))
        # Now the webhooks' only share for this host is taken, and mails go on.
        hooks.gate.clear()
        send_test(trigger_id=trigger_id, actor=TEST_ACTOR)
        until(lambda: webhooks.top_up() == 1)
        stranger = letters.add()
        assert mails.top_up() == 1
        until(lambda: shown(stranger) == ("delivered", 1))
        hooks.gate.set()
        receiver.released.set()
        assert webhooks.wait(60)
        assert mails.wait(60)
    for senders in (mails, webhooks):
        senders.finish()
    assert pool.STOP_SECONDS < 5


def until(condition: Any, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
