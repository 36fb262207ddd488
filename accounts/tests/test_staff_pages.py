"""What staff see of accounts in admin."""

import pytest
from django.test import Client

from accounts.emails import Email
from accounts.models import AccountMail, Session, User
from accounts.services import create_staff
from pipedai.admin.site import list_of, page_of
from pipedai.events import SYSTEM
from testing.world.cast import browser
from testing.world.mails import MAIL_SERVER, invite_for_test, issue_token, token_to
from testing.world.users import PASSWORD, UserFactory
from workspaces.models import Environment, Invitation
from workspaces.services import create_environment, create_workspace

pytestmark = pytest.mark.django_db


@pytest.fixture
def desk():
    staff = create_staff(email=Email("staff@example.com"), password=PASSWORD, name="", actor=SYSTEM)
    client = Client()
    body = {"email": staff.email, "password": PASSWORD, "code": ""}
    assert client.post("/admin/login/", body).status_code == 302
    return client


def test_staff_see_proof_sessions_and_links_without_tokens(desk, cast):
    user = UserFactory.create(email="ada@example.com")
    login = {"email": user.email, "password": PASSWORD}
    browser().post(
        "/api/v1/auth/login", login, REMOTE_ADDR="198.51.100.7", HTTP_USER_AGENT="Browser/1"
    )
    token = issue_token("reset", user.email, user)
    sessions, mails = (list_of(model, user=user.id) for model in (Session, AccountMail))
    page = desk.get(page_of(User, user.id)).content.decode()
    assert "Email verified at" in page
    for url, told in ((sessions, "198.51.100.7"), (sessions, "Browser/1"), (mails, user.email)):
        assert url in page
        shown = desk.get(url).content.decode()
        assert told in shown
        assert token not in shown
        assert token[4:40] not in shown


def test_it_says_where_a_displaced_user_is_the_last_owner(desk, settings):
    settings.EMAIL_URL = MAIL_SERVER
    old = UserFactory.create(email="ada@example.com")
    workspace = create_workspace(name="theirs", user_id=old.id, actor=SYSTEM)
    create_environment(workspace_id=workspace.id, name="theirs", user_id=old.id, actor=SYSTEM)
    body = {"email": old.email, "password": PASSWORD}
    browser().post("/api/v1/auth/register", body)
    body["registrationToken"] = token_to(old.email, "registration")
    assert browser().post("/api/v1/auth/register", body).status_code == 201
    page = desk.get(page_of(User, old.id)).content.decode()
    assert "owner, the only one, who can log in no more" in page


def test_an_environments_page_leads_to_its_invitations(desk, cast):
    token = invite_for_test(cast.environment, cast.owner, "grace@example.com")
    invitations = list_of(Invitation, environment=cast.environment.id)
    assert invitations in desk.get(page_of(Environment, cast.environment.id)).content.decode()
    page = desk.get(invitations).content.decode()
    assert "grace@example.com" in page
    assert token not in page
