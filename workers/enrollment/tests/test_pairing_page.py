"""/pair shows a person the right steps. The tests with a real browser are in test_published_client.py."""

import html
import re

import pytest
from django.test import Client

from pipedai.api.authentication import AUTH_COOKIE
from testing.world.cast import session_cookie
from testing.world.users import PASSWORD
from workers.enrollment.tests.enrolling import begin
from workers.hosts.worker_package import worker_package
from workers.models import Enrollment

OWN = {"origin": "http://localhost:8000"}


def signed_in(user):
    client = Client(headers=OWN)
    client.cookies[AUTH_COOKIE] = session_cookie(user)
    return client


def decide_form(client, code):
    """Returns the form that the page posts when a person decides."""
    page = client.post("/pair", {"step": "code", "code": code})
    assert page.status_code == 200
    return {"proof": re.findall(r'name="proof" value="([^"]+)"', page.content.decode())[0]}


def test_whoever_is_not_signed_in_is_asked_to_and_then_for_the_code(cast):
    client = Client(headers=OWN)
    assert "Sign in to look" in client.get("/pair").content.decode()
    wrong = client.post("/pair", {"step": "sign-in", "email": cast.admin.email, "password": "no"})
    assert (wrong.status_code, AUTH_COOKIE in client.cookies) == (401, False)
    form = {"step": "sign-in", "email": cast.admin.email, "password": PASSWORD}
    assert client.post("/pair", form)["Location"] == "/pair"
    assert client.cookies[AUTH_COOKIE]["httponly"]
    assert "Type the code" in client.get("/pair").content.decode()
    assert client.post("/pair", {"step": "sign-out"}).status_code == 303
    assert "Sign in to look" in client.get("/pair").content.decode()


def test_the_page_is_kept_nowhere_and_holds_no_script(cast):
    answer = Client().get("/pair")
    assert "no-store" in answer["Cache-Control"]
    assert "<script" not in answer.content.decode()
    assert not re.search(r'(?:src|href|action)="(?![/#])', answer.content.decode())


def test_a_code_in_the_address_is_not_looked_at(cast):
    code = begin(label="mine").json()["userCode"]
    answer = signed_in(cast.admin).get(f"/pair?code={code}&user_code={code}")
    assert code not in answer.content.decode()


def test_it_shows_who_asks_and_that_the_name_is_unverified(cast):
    code = begin(label="<b>Payroll</b>").json()["userCode"]
    text = signed_in(cast.admin).post("/pair", {"step": "code", "code": code}).content.decode()
    assert "127.0.0.1" in text
    assert "node" in text
    assert "&lt;b&gt;Payroll&lt;/b&gt;" in text
    assert "Unverified" in text
    assert re.findall(r"<option[^>]*selected[^>]*>([^<]*)", text)[0] == "Choose one…"


def test_it_offers_the_environments_in_which_the_user_is_an_admin(cast):
    code = begin().json()["userCode"]
    for user, offered in ((cast.admin, True), (cast.operator, False), (cast.stranger, False)):
        text = signed_in(user).post("/pair", {"step": "code", "code": code}).content.decode()
        assert (str(cast.environment.id) in text) is offered
        assert 'value="deny"' in text


def test_approving_takes_an_environment_and_then_lets_the_host_in(cast):
    client, code = signed_in(cast.admin), begin().json()["userCode"]
    form = {**decide_form(client, code), "step": "approve", "auth_mode": "claude_max"}
    refused = client.post("/pair", form)
    assert (refused.status_code, "Choose the environment" in refused.content.decode()) == (
        400,
        True,
    )
    for foreign in (cast.strange_environment.id, "nonsense"):
        assert client.post("/pair", {**form, "environment": foreign}).status_code == 400
    answer = client.post("/pair", {**form, "environment": cast.environment.id})
    assert "Approved" in answer.content.decode()
    enrollment = Enrollment.objects.get()
    assert enrollment.environment_id == cast.environment.id
    assert enrollment.decided_by_id == cast.admin.id
    again = client.post("/pair", {**form, "environment": cast.environment.id})
    assert (again.status_code, "decided on" in again.content.decode()) == (409, True)


def test_denying_turns_the_host_away(cast):
    client, code = signed_in(cast.viewer), begin().json()["userCode"]
    answer = client.post("/pair", {**decide_form(client, code), "step": "deny"})
    assert "Denied" in answer.content.decode()
    assert Enrollment.objects.get().revoked_at is not None


def test_nothing_is_decided_by_a_foreign_page_a_stranger_or_an_address(cast):
    client, code = signed_in(cast.admin), begin().json()["userCode"]
    form = {
        **decide_form(client, code),
        "step": "approve",
        "auth_mode": "claude_max",
        "environment": cast.environment.id,
    }
    refusals = [
        client.post("/pair", form, headers={"origin": "https://evil.example"}),
        client.post("/pair", form, headers={"origin": "null", "sec-fetch-site": "cross-site"}),
        Client(headers=OWN).post("/pair", form),
        signed_in(cast.admin).post("/pair", form),  # the code was typed in another session
        client.post("/pair", {**form, "proof": form["proof"][:-1]}),
        client.get("/pair", form),
        client.put("/pair", form),
    ]
    assert [r.status_code for r in refusals] == [403, 403, 200, 409, 409, 200, 405]
    assert Enrollment.objects.get().approved_at is None


@pytest.mark.parametrize("typed", ["BBBB-BBBB", "", "x" * 500])
def test_a_wrong_code_is_said_to_be_wrong(cast, typed):
    answer = signed_in(cast.admin).post("/pair", {"step": "code", "code": typed})
    assert (answer.status_code, "Nothing waits" in answer.content.decode()) == (404, True)


def test_after_five_wrong_codes_the_page_says_to_wait(cast):
    client = signed_in(cast.admin)
    statuses = [
        client.post("/pair", {"step": "code", "code": "BBBB-BBBB"}).status_code for _ in range(6)
    ]
    assert statuses == [404] * 5 + [429]


def test_a_step_that_does_not_exist_asks_for_the_code(cast):
    assert signed_in(cast.admin).post("/pair", {"step": "launch"}).status_code == 404


def test_whoever_lets_a_host_in_is_shown_how_to_install_the_worker_there(cast):
    text = html.unescape(signed_in(cast.admin).get("/pair").content.decode())
    assert worker_package().install_command in text
    assert worker_package().install_command not in Client().get("/pair").content.decode()
