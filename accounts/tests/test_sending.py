"""What the mails about accounts say, and which are given up, with a real SMTP server."""

import re
from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.db.models import Q
from django.db.models.functions import Now
from django.test import override_settings

from accounts.mails import ACCOUNT_MAILS, make_void, queue_mail
from accounts.models import AccountMail, AccountMailAttempt
from accounts.ready import prune_account_mails
from pipedai.outgoing import attempts
from pipedai.outgoing.due import claim_due
from pipedai.retention import Order
from pipedai.sql import database_now
from testing.processes.mail_receiver import MailReceiver, receiving_mail
from testing.world.mails import invite_for_test, prove, token_to
from testing.world.users import UserFactory
from workspaces.models import Invitation

Purpose = AccountMail.Purpose
FACTS = {
    "environment": "prod https://evil.example/x",
    "workspace": "evil.example\r\nBcc: b@example.com",
    "role": "admin",
    "inviter": "<a href='https://evil.example'>Ada</a>",
    "inviter_email": "ada@example.com",
    "new_address": "new@example.com",
}

pytestmark = pytest.mark.django_db


@pytest.fixture
def receiver(settings) -> Iterator[MailReceiver]:
    with receiving_mail() as mail_receiver:
        settings.EMAIL_URL = mail_receiver.url()
        settings.PUBLIC_URL = "https://api.example.com"
        yield mail_receiver


@pytest.fixture
def ada():
    return UserFactory.create(email="ada@example.com")


def send():
    """Sends the one due mail, as the scheduler does, and returns its row afterwards."""
    (row,) = claim_due(ACCOUNT_MAILS, room=8, busy={}, per_host=4)
    attempts.record(ACCOUNT_MAILS, [(row, attempts.send(ACCOUNT_MAILS, row))])
    return AccountMail.objects.get(id=row["id"])


@pytest.mark.parametrize("purpose", list(Purpose))
def test_a_mail_has_its_link_in_both_parts_and_no_other(receiver, ada, purpose):
    queue_mail(purpose, address="ada@example.com", user_id=ada.id, facts=FACTS)
    assert send().status == "delivered"
    (mail,) = receiver.received
    assert mail.recipients == ["ada@example.com"]
    assert "Bcc" not in mail.message
    plain, html = mail.part("plain"), mail.part("html")
    links = set(re.findall(r"https?://[^\s\"<]+", plain + html))
    pages = {"change": "verify", "registration": "register", "link_notice": "undo"}
    page = {**pages, "follow_notice": "undo"}.get(purpose, purpose)
    notices = {Purpose.CHANGE_NOTICE: "account/password", Purpose.UNLINK_NOTICE: "account"}
    if purpose in notices:
        assert links == {f"https://api.example.com/console/{notices[purpose]}"}
    else:
        token = token_to("ada@example.com", purpose)
        assert links == {f"https://api.example.com/console/account/{page}#token={token}"}
    assert "<a href='https" not in html
    assert "evil.example" not in plain + html
    assert all(len(line) < 998 for line in mail.raw.splitlines())
    assert "<img" not in html


@pytest.mark.parametrize(("registration", "says"), [("invited", False), ("closed", True)])
def test_an_invitation_asks_for_an_account_where_nobody_may_register(
    receiver, cast, settings, registration, says
):
    settings.REGISTRATION = registration
    prove(cast.owner)
    url = f"/api/v1/environments/{cast.environment.id}/invitations"
    cast.client(cast.owner).post(url, {"email": "new@example.com", "role": "viewer"})
    assert send().status == "delivered"
    (mail,) = receiver.received
    for part in ("plain", "html"):
        assert ("nobody may register" in " ".join(mail.part(part).split())) == says


def test_links_lead_to_the_dashboard_if_there_is_one(receiver, ada, settings):
    settings.DASHBOARD_URL = "https://app.example.com"
    queue_mail(Purpose.RESET, address=ada.email, user_id=ada.id)
    send()
    assert "https://app.example.com/account/reset#token=acc_" in receiver.received[0].part("plain")


def test_nothing_goes_to_an_address_without_an_account(receiver):
    queue_mail(Purpose.RESET, address="nobody@example.com", user_id=None)
    assert send().status == "dead"
    assert AccountMailAttempt.objects.get().error == "no account has this e-mail address"
    assert receiver.received == []


@pytest.mark.parametrize("how", ["expired", "void"])
def test_a_link_that_would_not_work_is_not_sent(receiver, ada, how):
    mail = queue_mail(Purpose.RESET, address=ada.email, user_id=ada.id)
    assert mail is not None
    if how == "void":
        make_void(Q(id=mail.id))
    else:
        AccountMail.objects.update(expires_at=Now() - timedelta(seconds=1))
    assert send().status == "dead"
    assert receiver.received == []


def test_a_mail_outlives_a_rotation_of_the_secret_key(receiver, ada, settings):
    queue_mail(Purpose.RESET, address=ada.email, user_id=ada.id)
    old = settings.SECRET_KEY
    with override_settings(SECRET_KEY="n" * 50, SECRET_KEY_FALLBACKS=[old]):
        assert send().status == "delivered"
    queue_mail(Purpose.RESET, address=ada.email, user_id=ada.id)
    with override_settings(SECRET_KEY="n" * 50):
        assert send().status == "dead"


def test_no_log_line_has_the_token_or_the_address(receiver, ada, capfd):
    queue_mail(Purpose.VERIFY, address=ada.email, user_id=ada.id)
    send()
    logged = "".join(capfd.readouterr())
    assert "account_mail.sent" in logged
    assert token_to(ada.email, "verify") not in logged
    assert ada.email not in logged


def test_old_mails_are_pruned_with_attempts_and_invitations(cast):
    invite_for_test(cast.environment, cast.owner, "grace@example.com")
    invite_for_test(cast.environment, cast.owner, "new@example.com")
    old = AccountMail.objects.filter(address="grace@example.com")
    old.update(created_at=Now() - timedelta(days=31))
    AccountMailAttempt.objects.create(mail=old.get(), n=1, at=Now(), status_code=250, duration_ms=1)
    order = Order(database_now() - timedelta(days=30), limit=10, dry_run=True)
    assert [batch.removed for batch in prune_account_mails(order)] == [1]
    order = Order(database_now() - timedelta(days=30), limit=10)
    assert sum(batch.removed for batch in prune_account_mails(order)) == 1
    assert Invitation.objects.get().email == "new@example.com"
    assert not AccountMailAttempt.objects.exists()
