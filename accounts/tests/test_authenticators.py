"""One-time passwords of staff, and the recovery codes that stand in for them."""

import time
from io import StringIO

import pyotp
import pytest
from django.core.management import CommandError, call_command
from django.test import Client

from accounts import authenticators
from accounts.emails import Email
from accounts.models import Authenticator, RecoveryCode
from accounts.services import create_staff
from audit.models import AuditEntry
from pipedai.admin.tests.conftest import log_in
from pipedai.events import Actor
from pipedai.sql import database_now
from testing.world.users import PASSWORD, UserFactory, use_instant_passwords

STAFF = Actor("staff")
ACCOUNT = "/admin/account/"


@pytest.fixture(autouse=True)
def _instant_passwords(settings):
    use_instant_passwords(settings)


@pytest.fixture
def user(db):
    return create_staff(email=Email("staff@example.com"), password=PASSWORD, name="", actor=STAFF)


@pytest.fixture
def app_and_codes(user):
    """Sets an authenticator up. Returns the app, whose first code has been used, and the recovery codes."""
    setup = authenticators.begin_setup(user)
    assert setup is not None
    app = pyotp.TOTP(setup.secret)
    codes = authenticators.confirm_setup(user, code_of(app, -1), actor=STAFF)
    assert codes is not None
    return app, codes


def code_of(app, steps=0):
    # This waits until a time step is not near its end, since the code must still be the same when it is checked.
    while database_now().timestamp() % 30 > 24:
        time.sleep(0.1)
    return app.at(int(database_now().timestamp()) + 30 * steps)


def test_without_an_authenticator_no_code_is_needed(user):
    authenticators.begin_setup(user)
    assert authenticators.accept_code(user.id, "")
    assert not authenticators.has_authenticator(user.id)


def test_a_wrong_first_code_turns_nothing_on(user):
    authenticators.begin_setup(user)
    assert authenticators.confirm_setup(user, "000000", actor=STAFF) is None
    assert not authenticators.has_authenticator(user.id)


def test_a_code_counts_once_and_no_older_one_after_it(user, app_and_codes):
    app, _ = app_and_codes
    assert not authenticators.accept_code(user.id, "")
    assert not authenticators.accept_code(user.id, code_of(app, -1)), "setting up used the code"
    late, now = code_of(app, 1), code_of(app)
    assert authenticators.accept_code(user.id, late)
    assert not authenticators.accept_code(user.id, late)
    assert not authenticators.accept_code(user.id, now)


def test_a_code_of_another_time_is_refused(user, app_and_codes):
    app, _ = app_and_codes
    assert not authenticators.accept_code(user.id, code_of(app, 3))


def test_a_recovery_code_counts_once_in_any_spelling(user, app_and_codes):
    _, codes = app_and_codes
    assert len(set(codes)) == 10
    assert authenticators.accept_code(user.id, codes[0].upper().replace("-", " "))
    assert not authenticators.accept_code(user.id, codes[0])
    assert authenticators.accept_code(user.id, codes[1])


def test_nothing_of_it_is_stored_in_clear(user, app_and_codes):
    app, codes = app_and_codes
    held = Authenticator.objects.get()
    assert app.byte_secret() not in bytes(held.secret)
    kept = [bytes(each.code_digest) for each in RecoveryCode.objects.all()]
    assert not any(code.encode() in digest for code in codes for digest in kept)


def test_a_secret_moved_to_another_user_does_not_open_and_crashes_nothing(user, app_and_codes):
    app, _ = app_and_codes
    other = UserFactory.create(is_staff=True)
    held = Authenticator.objects.get(user=user)
    Authenticator.objects.create(
        user=other,
        secret=held.secret,
        master_key_id=held.master_key_id,
        confirmed_at=held.confirmed_at,
    )
    assert not authenticators.accept_code(other.id, code_of(app, 1))


def test_secrets_move_to_the_newest_master_key(user, app_and_codes, settings):
    app, _ = app_and_codes
    new = "new:bmV3LW1hc3Rlci1rZXktZm9yLXRoaXMtdGVzdC0zMmI="
    settings.MASTER_KEYS = [new, *settings.MASTER_KEYS]
    assert authenticators.rewrap_authenticators() == 1
    assert authenticators.rewrap_authenticators() == 0
    settings.MASTER_KEYS = [new]
    assert authenticators.accept_code(user.id, code_of(app, 1))


def test_rotating_the_master_key_moves_them_and_the_check_counts_them(
    user, app_and_codes, settings
):
    new = "new:bmV3LW1hc3Rlci1rZXktZm9yLXRoaXMtdGVzdC0zMmI="
    settings.MASTER_KEYS = [new, *settings.MASTER_KEYS]
    said = StringIO()
    call_command("check_keys", stdout=said)
    assert "master key dev: 0 data keys, 1 authenticator of staff\n" in said.getvalue()
    call_command("rotate_keys", "--master", stdout=said, stderr=StringIO())
    assert "So did 1 authenticator of staff." in said.getvalue()
    call_command("check_keys", stdout=said)
    assert "master key dev: 0 data keys (it may go from MASTER_KEYS)" in said.getvalue()
    settings.MASTER_KEYS = [settings.MASTER_KEYS[1]]
    with pytest.raises(CommandError):
        call_command("check_keys", stdout=said, stderr=said)
    assert f"does not open: authenticator {user.id}, secret (of staff)" in said.getvalue()


def test_a_secret_whose_master_key_is_lost_keeps_no_other_from_moving(
    user, app_and_codes, settings
):
    settings.MASTER_KEYS = ["new:bmV3LW1hc3Rlci1rZXktZm9yLXRoaXMtdGVzdC0zMmI="]
    assert authenticators.rewrap_authenticators() == 0
    assert not authenticators.accept_code(user.id, "000000")


def test_login_asks_for_the_code_and_says_the_same_without(user, app_and_codes):
    app, codes = app_and_codes
    for code in ("", "123"):
        answer = log_in(Client(), code=code)
        assert answer.status_code == 401
        assert "the password or the code is wrong" in answer.content.decode()
    assert log_in(Client(), code=code_of(app, 1)).status_code == 302
    assert log_in(Client(), code=code_of(app, 1)).status_code == 401, "it was used up"
    assert log_in(Client(), code=codes[0]).status_code == 302


def test_staff_set_one_up_and_turn_it_off_on_their_page(user):
    desk = Client()
    log_in(desk)
    page = desk.post(ACCOUNT, {"begin": "1"})
    assert "<svg" in page.content.decode()
    app = pyotp.TOTP(page.context["secret"])
    assert desk.post(ACCOUNT, {"enable": "1", "code": "000000"}).status_code == 302
    page = desk.post(ACCOUNT, {"enable": "1", "code": code_of(app)})
    assert len(page.context["codes"]) == 10
    assert (
        "codes" not in (desk.get(ACCOUNT).context or {}) or not desk.get(ACCOUNT).context["codes"]
    )
    assert desk.post(ACCOUNT, {"disable": "1", "code": "no"}).status_code == 302
    assert authenticators.has_authenticator(user.id)
    desk.post(ACCOUNT, {"disable": "1", "code": page.context["codes"][3]})
    assert not authenticators.has_authenticator(user.id)
    actions = AuditEntry.objects.filter(action__startswith="authenticator").order_by(
        "created_at", "id"
    )
    assert [(each.action, each.actor_id) for each in actions] == [
        ("authenticator.enabled", user.id),
        ("authenticator.disabled", user.id),
    ]


def test_looking_at_the_page_stores_nothing(user):
    desk = Client()
    log_in(desk)
    desk.get(ACCOUNT)
    assert not Authenticator.objects.exists()


def test_beginning_again_gives_another_secret_and_none_while_one_is_on(user):
    first = authenticators.begin_setup(user)
    second = authenticators.begin_setup(user)
    assert first is not None
    assert second is not None
    assert first.secret != second.secret
    authenticators.confirm_setup(user, code_of(pyotp.TOTP(second.secret)), actor=STAFF)
    assert authenticators.begin_setup(user) is None
