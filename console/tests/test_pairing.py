"""The screen `/console/pair`. The tests with a real browser are in workers/tests/test_published_client.py."""

import re

import pytest

from console.tests.visits import text_of, visitor
from pipedai.server.request_scope import content_policy
from workers.enrollment.tests.enrolling import begin
from workers.models import Enrollment
from workers.releases import worker_package
from workspaces.models import Membership

PAIR = "/console/pair"


def look(user, code):
    return visitor(user).post(PAIR, {"userCode": code})


def test_the_path_that_hosts_show_leads_to_the_screen_which_asks_for_the_code(cast, client):
    code = begin().json()["userCode"]
    assert client.get(f"/pair?code={code}")["Location"] == PAIR
    # A code in the address is not looked at, and no script runs that could read one from the fragment.
    page = visitor(cast.admin).get(f"{PAIR}?code={code}&userCode={code}")
    assert "Type the code" in text_of(page)
    assert worker_package().install_command in text_of(page)
    assert code not in page.content.decode()
    assert "<script" not in page.content.decode()
    assert "script-src" not in content_policy(PAIR)


def test_it_shows_who_asks_and_that_the_name_is_unverified(cast):
    page = look(cast.admin, begin(label="<b>Payroll</b>").json()["userCode"]).content.decode()
    assert "127.0.0.1" in page
    assert "node" in page
    assert "&lt;b&gt;Payroll&lt;/b&gt;" in page
    assert "Unverified" in page


def test_who_has_one_environment_need_not_choose_it(cast):
    code = begin().json()["userCode"]
    places = r"<option[^>]*>([^<]*) / ([^<]*)</option>"
    page = look(cast.admin, code).content.decode()
    assert "Choose one…" not in page
    assert len(re.findall(places, page)) == 1
    Membership.objects.create(environment=cast.strange_environment, user=cast.admin, role="admin")
    page = look(cast.admin, code).content.decode()
    assert re.findall(r'<option value=""[^>]*selected[^>]*>([^<]*)', page) == ["Choose one…"]
    assert len(re.findall(places, page)) == 2


@pytest.mark.parametrize(
    ("kind", "heading", "offered"),
    [
        ("host", "Pair a machine", ["admin"]),
        ("command_line", "acts for you", ["admin", "operator"]),
    ],
)
def test_it_offers_the_environments_for_which_the_visitor_may_approve(cast, kind, heading, offered):
    code = begin(**{"for": kind}).json()["userCode"]
    for role in ("admin", "operator", "stranger"):
        page = look(getattr(cast, role), code)
        assert heading in text_of(page)
        assert (str(cast.environment.id) in page.content.decode()) is (role in offered)
        assert 'value="deny"' in page.content.decode()


def test_approving_takes_an_environment_and_then_lets_the_host_in_once(cast):
    client, code = visitor(cast.admin), begin().json()["userCode"]
    form = {"userCode": code, "step": "approve", "authMode": "api_key"}
    for other, status in ((None, 400), ("nonsense", 400), (cast.strange_environment.id, 404)):
        page = client.post(PAIR, {**form, "environmentId": other or ""})
        assert page.status_code == status, other
        assert 'value="approve"' in page.content.decode()
    page = client.post(PAIR, {**form, "environmentId": cast.environment.id})
    assert "Approved. The machine joins" in text_of(page)
    enrollment = Enrollment.objects.get()
    assert (enrollment.environment_id, enrollment.auth_mode) == (cast.environment.id, "api_key")
    assert enrollment.decided_by_id == cast.admin.id
    again = client.post(PAIR, {**form, "environmentId": cast.environment.id})
    assert (again.status_code, "Nothing waits with this code" in text_of(again)) == (404, True)


def test_approving_a_command_line_gives_at_most_the_own_role(cast):
    client, code = visitor(cast.operator), begin(**{"for": "command_line"}).json()["userCode"]
    form = {"userCode": code, "step": "approve", "environmentId": cast.environment.id}
    assert client.post(PAIR, {**form, "role": "admin"}).status_code == 403
    page = client.post(PAIR, {**form, "role": "operator"})
    assert "Approved. The command line gets its key" in text_of(page)
    assert Enrollment.objects.get().role == "operator"


def test_denying_turns_the_host_away(cast):
    page = visitor(cast.viewer).post(PAIR, {"userCode": begin().json()["userCode"], "step": "deny"})
    assert "Denied" in text_of(page)
    assert Enrollment.objects.get().revoked_at is not None


def test_nothing_is_decided_by_a_stranger_or_an_address(cast):
    form = {
        "userCode": begin().json()["userCode"],
        "step": "approve",
        "environmentId": cast.environment.id,
    }
    assert visitor().post(PAIR, form).status_code == 401
    assert visitor(cast.stranger).post(PAIR, form).status_code == 404
    assert visitor(cast.admin).get(PAIR, form).status_code == 200
    assert Enrollment.objects.get().approved_at is None


def test_a_wrong_code_is_said_to_be_wrong_and_after_five_the_page_says_to_wait(cast):
    client = visitor(cast.admin)
    for typed in ("", "BBBB\0BBBB", "x" * 500):
        assert client.post(PAIR, {"userCode": typed}).status_code == 400
    pages = [client.post(PAIR, {"userCode": "BBBB-BBBB"}) for _ in range(6)]
    assert [page.status_code for page in pages] == [404] * 5 + [429]
    assert "Nothing waits with this code" in text_of(pages[0])
