"""A user is deactivated and activated again: credentials die, the audit log tells, a repeat changes nothing."""

import pytest

from accounts.models import Session, User
from accounts.services import deactivate_user, reactivate_user
from pipedai.api.errors import NotFound
from pipedai.events import Actor
from pipedai.ids import new_id
from testing.probes.audited import audited
from testing.world.cast import browser
from testing.world.users import PASSWORD


@pytest.fixture
def staff(cast):
    return Actor("staff", cast.owner.id, "192.0.2.9", "support-1")


def log_in(user):
    body = {"email": user.email, "password": PASSWORD}
    return browser().post("/api/v1/auth/login", body).status_code


def test_every_session_of_a_deactivated_user_is_dead(cast, staff):
    one, other, teammate = (
        cast.client(cast.admin),
        cast.client(cast.admin),
        cast.client(cast.viewer),
    )
    deactivate_user(user_id=cast.admin.id, actor=staff)
    assert [c.get("/api/v1/auth/me").status_code for c in (one, other, teammate)] == [401, 401, 200]
    assert not Session.objects.filter(user=cast.admin, revoked_at__isnull=True).exists()
    assert log_in(cast.admin) == 401


def test_a_reactivated_user_logs_in_anew_and_no_old_session_comes_back(cast, staff):
    client = cast.client(cast.admin)
    deactivate_user(user_id=cast.admin.id, actor=staff)
    reactivate_user(user_id=cast.admin.id, actor=staff)
    assert client.get("/api/v1/auth/me").status_code == 401
    assert log_in(cast.admin) == 200


def test_both_are_audited_once_however_often_they_are_done(cast, staff):
    with audited() as deactivated:
        deactivate_user(user_id=cast.viewer.id, actor=staff)
        deactivate_user(user_id=cast.viewer.id, actor=staff)
    with audited() as reactivated:
        reactivate_user(user_id=cast.viewer.id, actor=staff)
        reactivate_user(user_id=cast.viewer.id, actor=staff)
    for rows, action in ((deactivated, "user.deactivated"), (reactivated, "user.reactivated")):
        by, on = ("staff", cast.owner.id), ("user", cast.viewer.id)
        assert rows.the_only(action, by=by, on=on, within=None) == {}


def test_an_active_user_is_not_reactivated(cast, staff):
    with audited() as rows:
        reactivate_user(user_id=cast.viewer.id, actor=staff)
    assert rows == []
    assert User.objects.get(id=cast.viewer.id).is_active


@pytest.mark.django_db
@pytest.mark.parametrize("change", [deactivate_user, reactivate_user])
def test_nobody_is_not_found(change):
    with pytest.raises(NotFound):
        change(user_id=new_id(), actor=Actor("system"))
