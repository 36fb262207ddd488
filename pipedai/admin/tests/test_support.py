"""A support action asks for confirmation, calls the API's service, and is audited with the staff user as actor."""

from urllib.parse import urljoin

import pyotp
import pytest
from django.db.models.functions import Now

from accounts.authenticators import begin_setup, confirm_setup, has_authenticator
from accounts.models import User
from audit.models import AuditEntry
from pipedai.admin.values import page_of
from pipedai.events import Actor
from pipedai.sql import database_now
from testing.world.cast import bearer, browser, issue_enrollment, session_cookie
from testing.world.runs import Runs
from triggers.models import Delivery, Run
from workers.models import Worker
from workspaces.models import ApiKey


def _key(cast):
    cast.mint("pwk")
    return ApiKey.objects.filter(kind="pwk").latest("created_at")


def _enrollment(cast):
    return issue_enrollment(cast.environment, cast.owner)[0]


def _worker(cast):
    return Worker.objects.get(id=cast.worker.worker_id)


def _disabled(cast):
    Worker.objects.update(disabled_at=Now())
    return _worker(cast)


def _unapproved(cast):
    Worker.objects.update(unapproved_since=Now())
    return _worker(cast)


def _deactivated(cast):
    User.objects.filter(id=cast.viewer.id).update(is_active=False)
    return cast.viewer


def _queued(cast):
    return Run.objects.get(id=Runs.of(cast).queue())


def _held(cast):
    return Run.objects.get(id=Runs.of(cast).running())


def _delivered(cast):
    run_id = Runs.of(cast).ended()
    Delivery.objects.filter(run_id=run_id).update(status="dead", next_attempt_at=None)
    return Delivery.objects.get(run_id=run_id)


def _with_authenticator(cast):
    _set_up_authenticator(cast.viewer)
    return cast.viewer


def _set_up_authenticator(user):
    setup = begin_setup(user)
    assert setup is not None
    code = pyotp.TOTP(setup.secret).at(int(database_now().timestamp()))
    assert confirm_setup(user, code, actor=Actor("staff"))


ACTIONS = [
    (_key, "revoke", "api-key.revoked"),
    (_enrollment, "revoke", "enrollment.revoked"),
    (_worker, "disable", "worker.updated"),
    (_disabled, "enable", "worker.updated"),
    (_worker, "revoke-token", "worker.token-revoked"),
    (_queued, "cancel", "run.canceled"),
    (_held, "cancel", "run.cancel-requested"),
    (_delivered, "redeliver", "webhook.redelivered"),
    (lambda cast: cast.viewer, "deactivate", "user.deactivated"),
    (_deactivated, "reactivate", "user.reactivated"),
    (_with_authenticator, "remove-authenticator", "authenticator.disabled"),
    (_unapproved, "approve", "worker.approved"),
]


@pytest.mark.parametrize(
    ("make", "action", "told"), ACTIONS, ids=[f"{case[1]}: {case[2]}" for case in ACTIONS]
)
def test_an_action_asks_acts_and_is_audited_as_the_staff_user(
    make, action, told, desk, cast, staff
):
    row = make(cast)
    url = page_of(type(row), row.pk)
    assert f"{url}{action}/" in desk.get(url).content.decode()
    before = AuditEntry.objects.count()
    assert "The audit log will name you." in desk.get(f"{url}{action}/").content.decode()
    assert AuditEntry.objects.count() == before, "looking changes nothing"
    answer = desk.post(f"{url}{action}/", REMOTE_ADDR="203.0.113.9")
    assert urljoin(url, answer.headers["Location"]) == url
    entry = AuditEntry.objects.latest("created_at", "id")
    assert (entry.action, entry.actor_type, entry.actor_id) == (told, "staff", staff.id)
    assert entry.ip == "203.0.113.9"
    page = desk.get(url).content.decode()
    if told != "webhook.redelivered":  # Its target is the new delivery.
        assert told in page
        assert staff.email in page


def test_a_displaced_account_says_so_and_cannot_be_reactivated(desk, cast):
    placeholder = "0b7f@displaced.invalid"
    User.objects.filter(id=cast.viewer.id).update(is_active=False, email=placeholder)
    url = page_of(User, cast.viewer.id)
    page = desk.get(url).content.decode()
    assert "Somebody else proved that the address was theirs" in page
    assert f"{url}reactivate/" not in page
    desk.post(f"{url}reactivate/")
    assert not User.objects.get(id=cast.viewer.id).is_active


@pytest.mark.parametrize("which", [0, 5, 8], ids=["revoke", "cancel", "deactivate"])
def test_a_second_click_changes_nothing_more(which, desk, cast):
    make, action, _ = ACTIONS[which]
    row = make(cast)
    url = f"{page_of(type(row), row.pk)}{action}/"
    desk.post(url)
    before = AuditEntry.objects.count()
    assert desk.post(url).status_code == 302
    assert AuditEntry.objects.count() == before


def test_a_revoked_key_and_a_revoked_token_are_dead_at_once(desk, cast):
    token = cast.mint("pwk")
    key = ApiKey.objects.latest("created_at")
    desk.post(f"{page_of(ApiKey, key.id)}revoke/")
    desk.post(f"{page_of(Worker, cast.worker.worker_id)}revoke-token/")
    url = f"/api/v1/environments/{cast.environment.id}/triggers"
    assert bearer(token).get(url).status_code == 401
    poll = f"/api/v1/workers/{cast.worker.worker_id}/poll"
    assert cast.worker_client().get(poll).status_code == 401


def test_a_deactivated_user_is_out_everywhere(desk, cast):
    client = browser(session_cookie(cast.viewer))
    desk.post(f"{page_of(User, cast.viewer.id)}deactivate/")
    assert client.get("/api/v1/auth/me").status_code == 401


def test_staff_do_not_lock_themselves_out(desk, staff):
    url = page_of(User, staff.id)
    desk.post(f"{url}deactivate/")
    assert "another of the staff can" in desk.get(url).content.decode()
    staff.refresh_from_db()
    assert staff.is_active


def test_staff_do_not_turn_their_own_authenticator_off_without_a_code(desk, staff):
    _set_up_authenticator(staff)
    url = page_of(User, staff.id)
    desk.post(f"{url}remove-authenticator/")
    assert "on the page of your account, with a code" in desk.get(url).content.decode()
    assert has_authenticator(staff.id)


def test_what_the_state_machine_refuses_is_a_sentence_on_the_page(desk, cast):
    run = _queued(cast)
    url = page_of(Run, run.id)
    assert desk.get(f"{url}cancel/").status_code == 200
    Runs(cast, run.trigger_id).cancel(run.id)
    desk.post(f"{url}cancel/")
    assert "This can&#x27;t be done to the run now." in desk.get(url).content.decode()


def test_a_deleted_triggers_delivery_is_not_sent_again(desk, cast):
    delivery = _delivered(cast)
    type(delivery.trigger).objects.update(webhook_url=None, webhook_secret=None, webhook_key=None)
    url = page_of(Delivery, delivery.id)
    desk.post(f"{url}redeliver/")
    assert "The trigger has no webhookUrl." in desk.get(url).content.decode()


def test_an_action_needs_the_forms_token_and_a_staff_session(door, cast):
    row = _key(cast)
    url = f"{page_of(ApiKey, row.id)}revoke/"
    assert door.post(url).status_code in (302, 403)
    assert browser(session_cookie(cast.owner)).post(url).status_code in (302, 403)
    row.refresh_from_db()
    assert row.revoked_at is None


def test_an_unknown_action_leads_back(desk, cast):
    url = page_of(Worker, cast.worker.worker_id)
    assert desk.post(f"{url}explode/").headers["Location"] == url
