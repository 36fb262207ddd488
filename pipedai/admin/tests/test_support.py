"""A support action asks for confirmation, calls the API's service, and is audited with the staff user as actor."""

import re
from datetime import timedelta
from urllib.parse import urljoin

import pyotp
import pytest
from django.db.models.functions import Now

from accounts.authenticators import begin_setup, confirm_setup, has_authenticator
from accounts.models import User
from audit.models import AuditEntry
from pipedai.admin.site import page_of
from pipedai.admin.tests.conftest import act
from pipedai.events import Actor
from pipedai.sql import database_now
from testing.world.cast import bearer, browser, issue_enrollment, session_cookie
from testing.world.pools import add_pool
from testing.world.runs import Runs
from triggers.models import Delivery, Run, Trigger
from workers.models import Worker
from workspaces.ceilings import PROFILE, RAISABLE
from workspaces.models import ApiKey, Environment, Workspace


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


def _limited(cast):
    Worker.objects.update(limited_until=Now() + timedelta(hours=1))
    return _worker(cast)


def _trigger(cast):
    return Trigger.objects.get(id=cast.trigger_id)


def _environment(cast):
    return Environment.objects.get(id=cast.environment.id)


def _workspace(cast):
    return cast.workspace


def _paused(cast):
    Environment.objects.filter(id=cast.environment.id).update(paused_at=Now())
    return _environment(cast)


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
    (_limited, "lift-limit", "worker.updated"),
    (_environment, "pause", "environment.updated"),
    (_paused, "resume", "environment.updated"),
    (_trigger, "move", "trigger.updated"),
    (_workspace, "ceilings", "workspace.updated"),
]


def _entered(cast, action):
    """Returns what staff enter in the action's form, if it has one."""
    if action == "move":
        return {"pool_id": str(add_pool(cast))}
    if action == "ceilings":
        return {**PROFILE, "triggers": "7000"}
    return {"pause_reason": "A bill is open."} if action == "pause" else {}


@pytest.mark.parametrize(
    ("make", "action", "told"), ACTIONS, ids=[f"{case[1]}: {case[2]}" for case in ACTIONS]
)
def test_an_action_asks_acts_and_is_audited_as_the_staff_user(
    make, action, told, desk, cast, staff
):
    row, entered = make(cast), _entered(cast, action)
    url, confirm = page_of(type(row), row.pk), act(type(row), row.pk, action)
    assert re.search(f'href="{confirm}">\\w', desk.get(url).content.decode())
    before = AuditEntry.objects.count()
    assert "The audit log will name you." in desk.get(confirm).content.decode()
    assert AuditEntry.objects.count() == before, "looking changes nothing"
    answer = desk.post(confirm, entered, REMOTE_ADDR="203.0.113.9")
    assert urljoin(url, answer.headers["Location"]) == url
    entry = AuditEntry.objects.latest("created_at", "id")
    assert (entry.action, entry.actor_type, entry.actor_id) == (told, "staff", staff.id)
    assert entry.ip == "203.0.113.9"
    history = desk.get(url.replace("/change/", "/history/"), follow=True).content.decode()
    if told != "webhook.redelivered":  # Its target is the new delivery.
        assert told in history
        assert staff.email in history


def test_staff_see_the_raises_and_set_them_within_the_bounds(desk, cast):
    page = act(Workspace, cast.workspace.id, "ceilings")
    entered = {name: PROFILE[name] for name in RAISABLE}
    refused = desk.post(page, {**entered, "workers": 10_001})
    assert "less than or equal to 10000" in refused.content.decode()
    desk.post(page, {**entered, "workers": 10_000})
    row = desk.get(page_of(Workspace, cast.workspace.id)).content.decode()
    assert "&quot;workers&quot;: 10000" in row
    shown = desk.get(page).content.decode()
    assert 'value="10000"' in shown
    # A page that was opened before does not undo the raise.
    first = {f"initial-{name}": number for name, number in entered.items()}
    assert all(f'name="{name}"' in shown for name in first)
    desk.post(page, {**entered, **first, "pools": 201})
    assert Workspace.objects.get(id=cast.workspace.id).ceilings == {"workers": 10_000, "pools": 201}


def test_a_displaced_account_says_so_and_cannot_be_reactivated(desk, cast):
    placeholder = "0b7f@displaced.invalid"
    User.objects.filter(id=cast.viewer.id).update(is_active=False, email=placeholder)
    url = act(User, cast.viewer.id, "reactivate")
    page = desk.get(page_of(User, cast.viewer.id)).content.decode()
    assert "Somebody else proved that the e-mail address was theirs" in page
    assert url not in page
    desk.post(url)
    assert not User.objects.get(id=cast.viewer.id).is_active


def test_a_moved_trigger_takes_its_queued_runs_along(desk, cast):
    run = _queued(cast)
    url = act(Trigger, run.trigger_id, "move")
    other, pool_id = cast.register("host-2").worker_id, add_pool(cast, name="Night <b>shift</b>")
    page = desk.get(url).content.decode()
    assert f'<option value="{cast.worker.worker_id}" selected>' in page, "the present worker"
    assert "Night &lt;b&gt;shift&lt;/b&gt;" in page
    desk.post(url, {"worker_id": str(other), "pool_id": str(pool_id)})
    run.refresh_from_db()
    assert (run.worker_id, run.pool_id) == (other, pool_id)
    (metadata,) = AuditEntry.objects.filter(action="trigger.updated").values_list(
        "metadata", flat=True
    )
    assert metadata == {
        "workerId": [str(cast.worker.worker_id), str(other)],
        "poolId": [None, str(pool_id)],
    }


def test_a_trigger_moves_only_to_a_worker_or_pool_of_its_environment(desk, cast):
    url = act(Trigger, cast.trigger_id, "move")
    gone = cast.register("host-2").worker_id
    Worker.objects.filter(id=gone).update(deleted_at=Now(), token_digest=None)
    strange = Worker.objects.create(
        environment=cast.strange_environment,
        label="strange",
        hostname="strange",
        os="",
        version="",
        auth_mode="api_key",
        max_concurrency=1,
    )
    before = AuditEntry.objects.count()
    for entered, told in (
        ({}, "Choose a worker, a pool, or both."),
        ({"worker_id": str(gone)}, "Select a valid choice."),
        ({"worker_id": str(strange.id)}, "Select a valid choice."),
        ({"pool_id": str(strange.id)}, "Select a valid choice."),
        ({"pool_id": "\0"}, 'class="errorlist"'),
    ):
        answer = desk.post(url, entered)
        assert answer.status_code == 200
        assert told in answer.content.decode(), entered
        assert str(gone) not in answer.content.decode()
    assert AuditEntry.objects.count() == before


def test_a_pause_has_a_reason_which_the_members_read_and_may_cancel_held_runs(desk, cast):
    run = _held(cast)
    url = act(Environment, cast.environment.id, "pause")
    assert "This field is required." in desk.post(url).content.decode()
    assert not _environment(cast).paused
    desk.post(url, {"pause_reason": "A bill is open.", "cancel_held": "on"})
    page = desk.get(page_of(Environment, cast.environment.id)).content.decode()
    assert "A bill is open." in page
    run.refresh_from_db()
    assert run.cancel_requested_at is not None
    shown = browser(session_cookie(cast.owner)).get(f"/api/v1/environments/{cast.environment.id}")
    assert (shown.json()["paused"], shown.json()["pauseReason"]) == (True, "A bill is open.")
    desk.post(act(Environment, cast.environment.id, "resume"))
    assert not _environment(cast).paused


@pytest.mark.parametrize("which", [0, 5, 8], ids=["revoke", "cancel", "deactivate"])
def test_a_second_click_changes_nothing_more(which, desk, cast):
    make, action, _ = ACTIONS[which]
    row = make(cast)
    url = act(type(row), row.pk, action)
    desk.post(url)
    before = AuditEntry.objects.count()
    assert desk.post(url).status_code == 302
    assert AuditEntry.objects.count() == before


def test_a_revoked_key_and_a_revoked_token_are_dead_at_once(desk, cast):
    token = cast.mint("pwk")
    key = ApiKey.objects.latest("created_at")
    desk.post(act(ApiKey, key.id, "revoke"))
    desk.post(act(Worker, cast.worker.worker_id, "revoke-token"))
    url = f"/api/v1/environments/{cast.environment.id}/triggers"
    assert bearer(token).get(url).status_code == 401
    poll = f"/api/v1/workers/{cast.worker.worker_id}/poll"
    assert cast.worker_client().get(poll).status_code == 401


def test_a_deactivated_user_is_out_everywhere(desk, cast):
    client = browser(session_cookie(cast.viewer))
    desk.post(act(User, cast.viewer.id, "deactivate"))
    assert client.get("/api/v1/auth/me").status_code == 401


def test_staff_do_not_lock_themselves_out(desk, staff):
    url = page_of(User, staff.id)
    desk.post(act(User, staff.id, "deactivate"))
    assert "another of the staff can" in desk.get(url).content.decode()
    staff.refresh_from_db()
    assert staff.is_active


def test_staff_do_not_turn_their_own_authenticator_off_without_a_code(desk, staff):
    _set_up_authenticator(staff)
    url = page_of(User, staff.id)
    desk.post(act(User, staff.id, "remove-authenticator"))
    assert "on the page of your account, with a code" in desk.get(url).content.decode()
    assert has_authenticator(staff.id)


def test_what_the_state_machine_refuses_is_a_sentence_on_the_page(desk, cast):
    run = _queued(cast)
    url = act(Run, run.id, "cancel")
    assert desk.get(url).status_code == 200
    Runs(cast, run.trigger_id).cancel(run.id)
    told = desk.post(url, follow=True).content.decode()
    assert "This can&#x27;t be done to the run now." in told


def test_a_deleted_triggers_delivery_is_not_sent_again(desk, cast):
    delivery = _delivered(cast)
    type(delivery.trigger).objects.update(webhook_url=None, webhook_secret=None, webhook_key=None)
    url = page_of(Delivery, delivery.id)
    desk.post(act(Delivery, delivery.id, "redeliver"))
    assert "The trigger has no webhookUrl." in desk.get(url).content.decode()


def test_an_action_needs_the_forms_token_and_a_staff_session(door, cast):
    row = _key(cast)
    url = act(ApiKey, row.id, "revoke")
    assert door.post(url).status_code in (302, 403)
    assert browser(session_cookie(cast.owner)).post(url).status_code in (302, 403)
    row.refresh_from_db()
    assert row.revoked_at is None


def test_an_unknown_action_leads_back(desk, cast):
    url = act(Worker, cast.worker.worker_id, "explode")
    back = page_of(Worker, cast.worker.worker_id)
    assert desk.post(url).headers["Location"] == back
