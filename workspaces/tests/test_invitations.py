"""Inviting people by e-mail, and accepting, revoking and registering with an invitation."""

import pytest
from django.db.models.functions import Now

from accounts.addresses import check_proof, is_findable
from accounts.models import AccountMail, User
from audit.models import AuditEntry
from pipedai.api.errors import Conflict
from testing.probes.shapes import A_TIME, AN_ID
from testing.world.cast import browser, session_cookie
from testing.world.mails import MAIL_SERVER, mails_to, prove, token_to
from testing.world.users import PASSWORD, UserFactory
from workspaces.models import Invitation, Membership

GRACE = "grace@example.com"

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _mail_server(settings, cast):
    settings.EMAIL_URL = MAIL_SERVER
    prove(cast.owner, cast.admin)


@pytest.fixture
def url(cast):
    return f"/api/v1/environments/{cast.environment.id}/invitations"


@pytest.fixture
def grace():
    user = UserFactory.create(email=GRACE)
    prove(user)
    return user


def accept(user, token):
    return browser(session_cookie(user)).post("/api/v1/invitations/accept", {"token": token})


def conflict(answer):
    return answer.status_code, answer.json()["code"]


def test_an_invitation_is_answered_listed_and_mailed(cast, url):
    admin = cast.client(cast.admin)
    answer = admin.post(url, {"email": " Grace@example.com", "role": "operator"})
    assert answer.status_code == 201
    assert answer.json() == {
        "id": AN_ID,
        "email": GRACE,
        "role": "operator",
        "invitedBy": str(cast.admin.id),
        "createdAt": A_TIME,
        "expiresAt": A_TIME,
        "link": None,
    }
    listed = answer.json()
    del listed["link"]
    assert admin.get(url).json()["items"] == [listed]
    assert mails_to(GRACE) == ["invitation"]
    assert AccountMail.objects.get().facts["environment"] == cast.environment.name


def test_its_reader_becomes_a_member_once(cast, url, grace):
    cast.client(cast.owner).post(url, {"email": GRACE, "role": "owner"})
    token = token_to(GRACE, "invitation")
    answer = accept(grace, token)
    assert answer.json() == {
        "environmentId": str(cast.environment.id),
        "userId": str(grace.id),
        "role": "owner",
        "createdAt": A_TIME,
    }
    assert conflict(accept(grace, token)) == (409, "link_unusable")
    assert cast.client(cast.owner).get(url).json()["items"] == []


def test_nobody_else_can_accept(cast, url, grace):
    cast.client(cast.owner).post(url, {"email": GRACE, "role": "viewer"})
    token = token_to(GRACE, "invitation")
    assert conflict(accept(cast.stranger, token)) == (409, "link_unusable")
    grace.email_verified_at = None
    grace.save()
    assert conflict(accept(grace, token)) == (409, "email_unverified")
    prove(grace)
    assert accept(grace, token).status_code == 200


def test_an_admin_invites_no_owner_and_only_with_a_proved_address(cast, url):
    admin = cast.client(cast.admin)
    assert admin.post(url, {"email": GRACE, "role": "owner"}).status_code == 403
    cast.admin.email_verified_at = None
    cast.admin.save()
    answer = admin.post(url, {"email": GRACE, "role": "viewer"})
    assert conflict(answer) == (409, "email_unverified")
    assert mails_to(GRACE) == []


@pytest.mark.parametrize("lost", ["removed", "demoted", "deactivated"])
def test_it_dies_with_its_inviters_right_to_grant_the_role(cast, url, grace, lost):
    cast.client(cast.admin).post(url, {"email": GRACE, "role": "admin"})
    token = token_to(GRACE, "invitation")
    inviter = Membership.objects.filter(environment=cast.environment, user=cast.admin)
    if lost == "removed":
        inviter.delete()
    elif lost == "demoted":
        inviter.update(role="operator")
    else:
        cast.admin.is_active = False
        cast.admin.save()
    assert conflict(accept(grace, token)) == (409, "link_unusable")


def test_a_revoked_one_is_dead(cast, url, grace):
    owner = cast.client(cast.owner)
    one = owner.post(url, {"email": GRACE, "role": "viewer"}).json()
    assert owner.delete(f"{url}/{one['id']}").status_code == 204
    assert owner.delete(f"{url}/{one['id']}").status_code == 404
    assert conflict(accept(grace, token_to(GRACE, "invitation"))) == (409, "link_unusable")
    assert owner.post(url, {"email": GRACE, "role": "viewer"}).status_code == 201


def test_an_address_has_one_open_invitation_and_an_expired_one_gives_way(cast, url):
    owner, body = cast.client(cast.owner), {"email": GRACE, "role": "viewer"}
    owner.post(url, body)
    assert conflict(owner.post(url, body)) == (409, "already_invited")
    Invitation.objects.update(expires_at=Now())
    assert owner.post(url, body).status_code == 201
    assert len(owner.get(url).json()["items"]) == 1


def test_a_member_needs_none(cast, url, grace):
    owner = cast.client(cast.owner)
    answer = owner.post(url, {"email": cast.viewer.email, "role": "viewer"})
    assert conflict(answer) == (409, "already_member")
    owner.post(url, {"email": GRACE, "role": "viewer"})
    Membership.objects.create(environment=cast.environment, user=grace, role="viewer")
    token = token_to(GRACE, "invitation")
    assert conflict(accept(grace, token)) == (409, "already_member")


class TestWithoutMailServer:
    """An invitation whose link the admin hands over."""

    @pytest.fixture
    def link(self, cast, url, settings):
        settings.EMAIL_URL = ""
        settings.PUBLIC_URL = "https://api.example.com"
        answer = cast.client(cast.owner).post(url, {"email": GRACE, "role": "operator"})
        assert answer.status_code == 201
        return answer.json()["link"]

    @pytest.fixture
    def token(self, link):
        page, _, token = link.partition("#token=")
        assert page == "https://api.example.com/console/account/invitation"
        return token

    def register(self, token):
        body = {"email": GRACE, "password": PASSWORD, "invitationToken": token}
        return browser().post("/api/v1/auth/register", body)

    def test_its_link_is_shown_once_and_no_mail_ever_sent(self, cast, url, token):
        assert token not in str(cast.client(cast.owner).get(url).json())
        mail = AccountMail.objects.get()
        assert (mail.status, mail.next_attempt_at) == ("handed", None)
        assert token not in str(list(AuditEntry.objects.values()))

    def test_registering_with_it_makes_a_member_whose_address_is_not_proved(self, token, settings):
        settings.REGISTRATION = "invited"
        answer = self.register(token)
        assert (answer.status_code, answer.json()["user"]["emailVerified"]) == (201, False)
        grace = User.objects.get(email=GRACE)
        assert Membership.objects.get(user=grace).role == "operator"
        # With a mail server later, others still find the account, as all from before.
        settings.EMAIL_URL = MAIL_SERVER
        assert is_findable(grace)
        with pytest.raises(Conflict, match="confirmed e-mail address"):
            check_proof(grace)

    def test_nobody_takes_an_account_with_it(self, token, grace):
        assert conflict(self.register(token)) == (409, "email_taken")
        assert accept(grace, token).status_code == 200

    def test_once_there_is_a_mail_server_only_who_proved_the_address_accepts(
        self, token, grace, settings
    ):
        settings.EMAIL_URL = MAIL_SERVER
        User.objects.filter(id=grace.id).update(email="old@example.com")
        assert conflict(self.register(token)) == (409, "link_unusable")
        User.objects.filter(id=grace.id).update(email=GRACE)
        assert accept(grace, token).status_code == 200


def test_there_are_ceilings_and_rates(cast, url, ceilings):
    owner = cast.client(cast.owner)
    ceilings["invitations"] = 1
    owner.post(url, {"email": GRACE, "role": "viewer"})
    answer = owner.post(url, {"email": "other@example.com", "role": "viewer"})
    assert (answer.json()["code"], answer.json()["ceiling"]) == ("ceiling_reached", "invitations")
    ceilings["invitations"] = 1000
    answers = [
        owner.post(url, {"email": f"n{n}@example.com", "role": "viewer"}).status_code
        for n in range(19)
    ]
    assert answers == [201] * 18 + [429]
    assert Invitation.objects.count() == 19
