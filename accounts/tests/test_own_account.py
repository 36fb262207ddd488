"""PATCH /auth/me and DELETE /auth/me."""

from datetime import timedelta

import pytest
from django.db.models import F

from accounts.models import Authenticator, Identity, Session, User
from accounts.passwords import is_password_of
from audit.models import AuditEntry
from notices.channels.consent import Standing, agree, standings
from testing.world.cast import TEST_ACTOR, bearer, browser, session_cookie
from testing.world.mails import MAIL_SERVER, prove
from testing.world.users import PASSWORD, UserFactory
from workspaces.api_keys import create_login_key
from workspaces.models import ApiKey, Membership
from workspaces.roles import Role

ME = "/api/v1/auth/me"

pytestmark = pytest.mark.django_db


class TestAChange:
    def test_is_of_the_name_and_the_time_zone(self, cast):
        client = cast.client(cast.viewer)
        changed = client.patch(ME, {"name": "Vera", "timezone": "Europe/London"}).json()["user"]
        assert (changed["name"], changed["timezone"]) == ("Vera", "Europe/London")
        cleared = client.patch(ME, {"timezone": None}).json()["user"]
        assert (cleared["name"], cleared["timezone"]) == ("Vera", None)
        assert client.patch(ME, {"name": "Vera"}).status_code == 200
        rows = AuditEntry.objects.filter(action="user.updated").order_by("id")
        assert [row.metadata for row in rows] == [
            {"changed": ["name", "timezone"]},
            {"changed": ["timezone"]},
        ]

    def test_is_checked(self, cast):
        client = cast.client(cast.viewer)
        for body in ({"timezone": "Mars"}, {"name": "a\nb"}, {"email": "x@example.com"}):
            assert client.patch(ME, body).status_code == 400, body


class TestADeletion:
    def test_needs_the_password(self, cast):
        client = cast.client(cast.viewer)
        for body in ({}, {"password": "another one"}):
            answer = client.delete(ME, body)
            assert answer.status_code == 400
            assert answer.json()["details"]["fieldErrors"].keys() == {"password"}
        assert User.objects.filter(id=cast.viewer.id, is_active=True).exists()

    def test_needs_the_password_that_the_user_has_at_its_end(self, cast, monkeypatch):
        def changed_meanwhile(user, password):
            found = is_password_of(user, password)
            User.objects.filter(id=user.id).update(password="!changed")
            return found

        monkeypatch.setattr("accounts.own_account.is_password_of", changed_meanwhile)
        answer = cast.client(cast.viewer).delete(ME, {"password": PASSWORD})
        assert (answer.status_code, answer.json()["code"]) == (401, "invalid_token")
        assert User.objects.filter(id=cast.viewer.id, is_active=True).exists()

    def test_or_a_sign_in_of_just_now(self, cast):
        User.objects.filter(id=cast.viewer.id).update(password="!unusable")
        client = cast.client(cast.viewer)
        sessions = Session.objects.filter(user=cast.viewer)
        sessions.update(created_at=F("created_at") - timedelta(minutes=6))
        answer = client.delete(ME)
        assert (answer.status_code, answer.json()["code"]) == (403, "sign_in_again")
        sessions.update(created_at=F("created_at") + timedelta(minutes=6))
        assert client.delete(ME).status_code == 204

    def test_ends_what_the_user_had_and_nothing_else(self, cast, settings):
        settings.EMAIL_URL = MAIL_SERVER
        admin = cast.admin
        address = admin.email
        prove(admin)
        agree(cast.environment.id, admin)
        Identity.objects.create(user=admin, issuer="https://login.example.com", sub="a")
        Authenticator.objects.create(user=admin, secret=b"x", master_key_id="k")
        client, other = cast.client(admin), browser(session_cookie(admin))
        key = client.post(
            f"/api/v1/environments/{cast.environment.id}/api-keys", {"name": "k", "prefix": "pwk"}
        ).json()["token"]
        login = create_login_key(
            environment_id=cast.environment.id,
            name="laptop",
            role=Role.VIEWER,
            user_id=admin.id,
            actor=TEST_ACTOR,
        )
        answer = client.delete(ME, {"password": PASSWORD})
        assert answer.status_code == 204
        assert answer.cookies["auth_token"].value == ""
        assert other.get(ME).status_code == 401
        assert bearer(login.token).get("/api/v1/whoami").status_code == 401
        assert bearer(key).get("/api/v1/whoami").status_code == 200
        assert not Membership.objects.filter(user=admin).exists()
        assert not Identity.objects.exists()
        assert not Authenticator.objects.exists()
        (standing,) = standings([(cast.environment.id, address)]).values()
        assert standing is Standing.REFUSED
        found = User.objects.get(id=admin.id)
        assert found.email.endswith("@deleted.invalid")
        assert (found.is_active, found.name, found.has_proved_email) == (False, "", False)
        log = cast.client(cast.owner).get(f"/api/v1/environments/{cast.environment.id}/audit-log")
        made = [row for row in log.json()["items"] if row["action"] == "api-key.created"]
        assert "deleted user" in [row["actor"]["label"] for row in made]
        assert address not in log.content.decode()
        # The address is free.
        again = {"email": address, "password": f"another {PASSWORD}"}
        assert browser().post("/api/v1/auth/register", again).status_code == 201
        assert ApiKey.objects.filter(created_by=admin, revoked_at__isnull=True).count() == 1

    def test_is_refused_to_who_alone_owns_an_environment(self, cast):
        client = cast.client(cast.stranger)
        answer = client.delete(ME, {"password": PASSWORD})
        assert (answer.status_code, answer.json()["code"]) == (409, "last_owner")
        environment = cast.strange_environment
        assert answer.json()["environments"] == [
            {"id": str(environment.id), "name": environment.name}
        ]
        second = UserFactory.create()
        Membership.objects.create(environment=environment, user=second, role="owner")
        assert client.delete(ME, {"password": PASSWORD}).status_code == 204
