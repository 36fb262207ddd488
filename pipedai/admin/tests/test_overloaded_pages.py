"""If a page of the admin or the console needs a locked row, it answers 503 with a page, and nothing is done."""

import pytest
from django.test import Client
from structlog.testing import capture_logs

from accounts.emails import Email
from accounts.models import User
from accounts.services import create_staff
from audit.models import AuditEntry
from pipedai.admin.tests.conftest import act, log_in
from pipedai.events import SYSTEM
from testing.probes.tables import contents
from testing.processes.stuck_rows import all_rows_of, held, shorten_timeouts
from testing.world.cast import session_cookie
from testing.world.users import PASSWORD
from workers.enrollment.tests.enrolling import begin
from workers.models import Enrollment


@pytest.fixture
def cast(committed_cast, settings):
    settings.THROTTLES_ENABLED = False
    return committed_cast


@pytest.fixture
def desk(cast):
    create_staff(email=Email("staff@example.com"), password=PASSWORD, name="Staff", actor=SYSTEM)
    client = Client()
    assert log_in(client).status_code == 302
    return client


def busy(answer):
    """Whether the answer is the 503 page, and was logged once."""
    assert answer["Content-Type"].startswith("text/html")
    text = answer.content.decode()
    assert "The service is busy: try again." in text
    return (answer.status_code, answer["Retry-After"]) == (503, "1")


def test_a_support_action_that_needs_the_row(cast, desk):
    page = act(User, cast.viewer.id, "deactivate")
    assert desk.get(page).status_code == 200
    shorten_timeouts()
    before = contents()
    with held(all_rows_of("user_account")), capture_logs() as logged:
        answer = desk.post(page)
    assert busy(answer)
    assert [line["event"] for line in logged] == ["database.timed_out"]
    assert contents() == before
    assert desk.post(page).status_code == 302
    assert AuditEntry.objects.filter(action="user.deactivated").count() == 1


def test_a_login_of_staff(cast, desk):
    shorten_timeouts()
    with held(all_rows_of("user_account")):
        assert busy(log_in(Client()))


def test_an_action_is_not_said_to_have_failed_for_the_row_of_the_session(cast, desk):
    """The action is done, and only the message about it is lost."""
    page = act(User, cast.viewer.id, "deactivate")
    shorten_timeouts()
    with held(all_rows_of("session")), capture_logs() as logged:
        answer = desk.post(page)
    assert answer.status_code == 302
    assert [line["event"] for line in logged] == ["database.timed_out"]
    cast.viewer.refresh_from_db()
    assert not cast.viewer.is_active
    assert desk.get("/admin/").status_code == 200


def test_approving_a_host(cast):
    code = begin().json()["userCode"]
    client = Client(headers={"origin": "http://localhost:8000"})
    client.cookies["auth_token"] = session_cookie(cast.admin)
    form = {"step": "approve", "userCode": code, "environmentId": str(cast.environment.id)}
    shorten_timeouts()
    with held(all_rows_of("enrollment")):
        assert busy(client.post("/console/pair", form))
    assert not Enrollment.objects.filter(approved_at__isnull=False).exists()
    assert client.post("/console/pair", form).status_code == 200
    assert Enrollment.objects.filter(approved_at__isnull=False).exists()
