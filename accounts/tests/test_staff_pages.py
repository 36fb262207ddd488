"""What staff see of accounts in admin (SPEC §15)"""

import pytest
from django.test import Client

from accounts.emails import Email
from accounts.models import User
from accounts.services import create_staff
from pipedai.admin.values import page_of
from pipedai.events import SYSTEM
from testing.world.cast import browser
from testing.world.mails import MAIL_SERVER, invite_for_test, issue_token, token_to
from testing.world.users import PASSWORD, UserFactory
from workspaces.models import Environment
from workspaces.services import create_environment, create_workspace

pytestmark = pytest.mark.django_db


@pytest.fixture
def desk():
    staff = create_staff(email=Email("staff@example.com"), password=PASSWORD, name="", actor=SYSTEM)
    client = Client()
    body = {"email": staff.email, "password": PASSWORD, "code": ""}
    assert client.post("/admin/login/", body).status_code == 302
    return client


def test_a_users_page_has_proof_sessions_and_links_without_tokens(desk, cast):
    user = UserFactory.create(email="ada@example.com")
    login = {"email": user.email, "password": PASSWORD}
    browser().post(
        "/api/v1/auth/login", login, REMOTE_ADDR="198.51.100.7", HTTP_USER_AGENT="Browser/1"
    )
    token = issue_token("reset", user.email, user)
    page = desk.get(page_of(User, user.id)).content.decode()
    assert all(each in page for each in ("Confirmed", "198.51.100.7", "Browser/1", "works"))
    assert token not in page
    assert token[4:40] not in page


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
    assert "the only owner, who can&#x27;t log in" in page


def test_an_environments_page_lists_open_invitations(desk, cast):
    token = invite_for_test(cast.environment, cast.owner, "grace@example.com")
    page = desk.get(page_of(Environment, cast.environment.id)).content.decode()
    assert "grace@example.com" in page
    assert token not in page
