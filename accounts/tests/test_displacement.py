"""An address that a stranger registered and never proved goes to its owner."""

import pytest
from django.db import connection

from accounts.emails import Email
from accounts.models import AccountMail, Session, User
from accounts.services import promote_to_staff
from audit.models import AuditEntry
from pipedai.api.errors import Conflict
from pipedai.events import SYSTEM
from testing.world.cast import bearer, browser, session_cookie
from testing.world.mails import MAIL_SERVER, invite_for_test, mails_to, prove, token_to
from testing.world.users import PASSWORD, UserFactory
from triggers.models import Trigger
from workspaces.models import ApiKey, Environment, Membership
from workspaces.services import create_environment, create_workspace

AUTH = "/api/v1/auth"
NEW = {"email": "ada@example.com", "password": PASSWORD, "name": "The real Ada"}


@pytest.fixture(autouse=True)
def _mail_server(settings):
    settings.EMAIL_URL = MAIL_SERVER


def register(**more):
    return browser().post(f"{AUTH}/register", {**NEW, **more})


def conflict(answer):
    return answer.status_code, answer.json()["code"]


@pytest.fixture
def squatter(cast):
    """A stranger who registered the address: owner of an environment of their own, and member of the cast's."""
    user = UserFactory.create(email="ada@example.com", name="Squatter", must_prove_email=True)
    Membership.objects.create(environment=cast.environment, user=user, role="admin")
    workspace = create_workspace(name="theirs", user_id=user.id, actor=SYSTEM)
    create_environment(workspace_id=workspace.id, name="theirs", user_id=user.id, actor=SYSTEM)
    return user


@pytest.mark.django_db
class TestTheOwner:
    def test_is_told_how_and_gets_an_account_of_their_own(self, squatter):
        assert conflict(register()) == (409, "address_unproved")
        token = token_to("ada@example.com", "registration")
        answer = register(registrationToken=token)
        assert answer.status_code == 201
        user = answer.json()["user"]
        assert (user["name"], user["emailVerified"]) == ("The real Ada", True)
        assert user["id"] != str(squatter.id)
        assert conflict(register(registrationToken=token)) == (409, "link_unusable")
        assert conflict(register()) == (409, "email_taken")

    def test_asks_for_a_new_password_and_gets_there_too(self, squatter):
        browser().post(f"{AUTH}/forgot-password", {"email": "ada@example.com"})
        assert mails_to("ada@example.com") == ["registration"]
        token = token_to("ada@example.com", "registration")
        assert register(registrationToken=token).status_code == 201

    def test_takes_part_in_an_invitation_with_the_new_account_alone(self, squatter, cast):
        invited = invite_for_test(
            cast.strange_environment, cast.stranger, "ada@example.com", "operator"
        )
        theirs = browser(session_cookie(squatter))
        answer = theirs.post("/api/v1/invitations/accept", {"token": invited})
        assert conflict(answer) == (409, "email_unverified")
        user = register(invitationToken=invited).json()["user"]
        member = Membership.objects.get(environment=cast.strange_environment, user_id=user["id"])
        assert (member.role, user["emailVerified"]) == ("operator", True)
        assert not Membership.objects.filter(
            environment=cast.strange_environment, user=squatter
        ).exists()

    def test_needs_the_token_of_their_own_address(self, squatter):
        register()
        token = token_to("ada@example.com", "registration")
        other = register(registrationToken=token, email="other@example.com")
        assert conflict(other) == (409, "link_unusable")
        both = register(registrationToken=token, invitationToken=token)
        assert both.status_code == 400

    def test_who_confirms_the_old_account_keeps_it(self, squatter):
        register()
        token = token_to("ada@example.com", "registration")
        prove(squatter)
        assert conflict(register(registrationToken=token)) == (409, "email_taken")
        squatter.refresh_from_db()
        assert squatter.is_active


@pytest.mark.django_db
class TestTheOldAccount:
    def displace(self):
        register()
        token = token_to("ada@example.com", "registration")
        assert register(registrationToken=token).status_code == 201

    def test_is_closed_and_its_sessions_end(self, squatter):
        client = browser(session_cookie(squatter))
        self.displace()
        squatter.refresh_from_db()
        assert not squatter.is_active
        assert squatter.email.endswith("@displaced.invalid")
        assert client.get(f"{AUTH}/me").status_code == 401
        login = {"email": "ada@example.com", "password": PASSWORD}
        assert browser().post(f"{AUTH}/login", login).json()["user"]["id"] != str(squatter.id)
        assert not Session.objects.filter(user=squatter, revoked_at__isnull=True).exists()

    def test_keeps_the_address_by_no_other_account_with_a_guessed_placeholder(self, squatter):
        UserFactory.create(email=f"{squatter.id}@displaced.invalid")
        self.displace()

    def test_loses_memberships_and_keys_and_nobody_elses_work_is_touched(self, squatter, cast):
        client = browser(session_cookie(squatter))
        keys = f"/api/v1/environments/{cast.environment.id}/api-keys"
        script = client.post(keys, {"name": "theirs", "prefix": "pwk", "role": "admin"}).json()
        client.post(keys, {"name": "theirs", "prefix": "wrk"})
        others = cast.key_client()
        before = Trigger.objects.count(), cast.environment.memberships.count()
        self.displace()
        triggers = f"/api/v1/environments/{cast.environment.id}/triggers"
        assert bearer(script["token"]).get(triggers).status_code == 401
        assert not ApiKey.objects.filter(created_by=squatter, revoked_at__isnull=True).exists()
        assert others.get(triggers).status_code == 200
        assert (Trigger.objects.count(), cast.environment.memberships.count()) == (
            before[0],
            before[1] - 1,
        )

    def test_stays_where_it_is_the_last_owner_and_staff_is_told(self, squatter, cast, capfd):
        self.displace()
        left = Membership.objects.get(user=squatter)
        assert left.environment.name == "theirs"
        assert "user.displaced_last_owner" in "".join(capfd.readouterr())
        assert Environment.objects.filter(id=left.environment_id, deleted_at=None).exists()

    def test_is_audited_without_the_address(self, squatter, cast):
        ApiKey.objects.filter(environment=cast.environment, kind="pwk").update(created_by=squatter)
        self.displace()
        rows = {row.action: row for row in AuditEntry.objects.order_by("created_at", "id")}
        new = User.objects.get(email="ada@example.com")
        assert rows["user.displaced"].target_id == squatter.id
        assert rows["user.displaced"].actor_id == new.id
        removed = rows["member.removed"]
        assert removed.environment_id == cast.environment.id
        assert removed.metadata == {"role": ["admin", None], "because": "user.displaced"}
        assert "ada@" not in str(list(AuditEntry.objects.values()))


@pytest.mark.django_db
class TestWhoIsFound:
    def found(self, cast, email):
        return cast.client(cast.owner).get(f"/api/v1/users/lookup?email={email}").status_code

    def test_only_who_proved_the_address_and_accounts_from_before(self, cast, settings):
        register()
        before = UserFactory.create(email="before@example.com")
        members = f"/api/v1/environments/{cast.environment.id}/members"
        body = {"email": "ada@example.com", "role": "viewer"}
        assert self.found(cast, "ada@example.com") == 404
        assert cast.client(cast.owner).post(members, body).status_code == 404
        assert self.found(cast, before.email) == 200
        prove(User.objects.get(email="ada@example.com"))
        assert self.found(cast, "ada@example.com") == 200
        assert cast.client(cast.owner).post(members, body).status_code == 201

    def test_an_account_from_before_goes_on_and_is_kept_by_who_confirms_it(self, cast, settings):
        settings.EMAIL_URL = ""
        client = browser()
        client.post(f"{AUTH}/register", NEW)
        settings.EMAIL_URL = MAIL_SERVER
        login = {"email": "ada@example.com", "password": PASSWORD}
        assert browser().post(f"{AUTH}/login", login).status_code == 200
        assert self.found(cast, "ada@example.com") == 200
        assert conflict(register()) == (409, "address_unproved")
        assert client.post(f"{AUTH}/resend-verification").status_code == 202
        body = {"token": token_to("ada@example.com", "verify")}
        assert client.post(f"{AUTH}/verify-email", body).status_code == 200
        assert conflict(register()) == (409, "email_taken")

    def test_everybody_while_there_is_no_mail_server(self, cast, settings):
        register()
        settings.EMAIL_URL = ""
        assert self.found(cast, "ada@example.com") == 200
        assert conflict(register()) == (409, "email_taken")


@pytest.mark.django_db
def test_only_a_proved_address_is_promoted_to_staff(settings):
    user = UserFactory.create(email="ada@example.com")
    with pytest.raises(Conflict, match="confirmed e-mail address"):
        promote_to_staff(email=Email(user.email), actor=SYSTEM)
    prove(user)
    assert promote_to_staff(email=Email(user.email), actor=SYSTEM)


@pytest.mark.django_db
def test_no_table_holds_a_token():
    register()
    token = token_to("ada@example.com", "verify")
    with connection.cursor() as cursor:
        cursor.execute("SELECT account_mail::text FROM account_mail")
        assert token not in str(cursor.fetchall())
    assert AccountMail.objects.get().token_digest
