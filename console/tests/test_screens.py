"""Each screen as a page: who sees it, what it costs, and that nothing that people wrote becomes a part of the page."""

import gzip
import re
from urllib.parse import urlsplit

import pytest
from django.core.handlers.wsgi import WSGIRequest
from django.test import Client, RequestFactory
from django.urls import resolve
from django.utils.html import escape

from console import asking, pages
from console.asking import Refused
from console.tests.screens import SCREENS
from console.tests.visits import HOME, text_of, visitor
from pipedai.ids import new_id
from pipedai.links import PAGES, link_to_page
from testing.world.cases import cases
from testing.world.connections import add_connection
from testing.world.runs import Runs
from testing.world.undone import undone
from testing.world.users import PASSWORD, UserFactory

HOSTILE = "<img src=x onerror=alert(1)> javascript:alert(1) </title><script>alert(1)</script>"
SIGNED_IN = [each for each in SCREENS if each.role != "nobody"]
OF_ENVIRONMENT = [each for each in SIGNED_IN if each.role != "user"]
ROLES = {each.role for each in OF_ENVIRONMENT}


def test_a_screen_asks_as_often_as_it_says_and_has_no_code_of_its_own(stage, monkeypatch):
    asked: list[str] = []

    def noting(environ):
        asked.append(environ["PATH_INFO"])
        return WSGIRequest(environ)

    monkeypatch.setattr(asking, "WSGIRequest", noting)
    owner = visitor(stage.cast.owner)
    for screen in SCREENS:
        asked.clear()
        with undone():
            page = (visitor() if screen.role == "nobody" else owner).get(screen.url(stage))
        assert page.status_code == 200, (screen, text_of(page))
        assert len(asked) == screen.calls, (screen, asked)
        text = page.content.decode()
        code = re.findall(r"<script(?! src=)|<style|\son\w+=|\sstyle=|javascript:", text)
        assert code == [], screen
        assert len(re.findall("<h1", text)) == 1, screen


def test_who_is_not_signed_in_is_led_to_sign_in_and_back(stage):
    for screen in SIGNED_IN:
        answer = visitor().get(screen.url(stage))
        assert answer.status_code == 303, screen
        assert answer["Location"].startswith("/console/sign-in?next=%2Fconsole%2F"), screen


def test_a_form_whose_session_has_ended_is_sent_again_after_signing_in(cast):
    client = visitor()
    page = client.post("/console/workspaces/new", {"name": "Acme"})
    assert page.status_code == 401
    assert "reload this page" in text_of(page)
    assert "/console/sign-in?next=%2Fconsole%2Fworkspaces%2Fnew" in page.content.decode()
    client.cookies = visitor(cast.owner).cookies
    assert client.post("/console/workspaces/new", {"name": "Acme"}).status_code == 303


def test_a_screen_shows_itself_from_its_role_on_and_nothing_to_a_stranger(stage):
    stranger = visitor(stage.cast.stranger)
    visitors = {role: visitor(getattr(stage.cast, role)) for role in ROLES}
    for screen in OF_ENVIRONMENT:
        url = screen.url(stage)
        assert visitors[screen.role].get(url).status_code == 200, screen
        page = stranger.get(url)
        assert page.status_code == 404, screen
        assert stage.cast.environment.name not in text_of(page), screen


@pytest.mark.parametrize(
    "path",
    [
        "environments/{}/triggers?name=%3Cimg",
        "triggers/{}",
        "triggers/{}/edit",
        "triggers/{}/delete",
    ],
)
def test_what_people_wrote_is_text(path, cast):
    hostile = cast.add_trigger(name=HOSTILE, prompt=HOSTILE)
    of = cast.environment.id if "environments" in path else hostile
    page = visitor(cast.owner).get(f"/console/{path.format(of)}").content.decode()
    assert escape(HOSTILE) in page
    assert "<img src=x" not in page
    assert "<script>" not in page


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (HOME, 303),
        ({"sec-fetch-site": "same-origin"}, 303),
        ({"origin": "null", "sec-fetch-site": "same-origin"}, 303),
        ({}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "https://dashboard.example", "sec-fetch-site": "cross-site"}, 403),
        ({"origin": "https://dashboard.example", "sec-fetch-site": "same-origin"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
    ],
)
def test_a_form_comes_from_a_page_of_ours(headers, status, cast, settings):
    settings.ALLOWED_ORIGINS = ("https://dashboard.example",)
    client = Client(headers=headers)
    client.cookies = visitor(cast.owner).cookies
    answer = client.post("/console/workspaces/new", {"name": "Mine"})
    assert answer.status_code == status


@cases(
    ("named_page", "opened"),
    [
        ("/console/environments", "/console/environments"),
        ("/pair", "/pair"),
        ("", "/console/"),
        ("//evil.example", "/console/"),
        ("/\\evil.example", "/console/"),
        ("https://evil.example/console/", "/console/"),
        ("javascript:alert(1)", "/console/"),
        ("/\t/evil.example", "/console/"),
        ("/console/" + "x" * 9999, "/console/"),
    ],
)
def test_signing_in_leads_to_pages_of_ours_alone(named_page, opened):
    request = RequestFactory().get("/console/sign-in", {"next": named_page})
    assert pages.safe_next(request) == opened


@pytest.mark.parametrize("status", [403, 404, 409, 429, 503])
def test_what_the_api_refuses_is_a_page_of_the_same_look(status, rf):
    @pages.screen
    def refused(request):
        raise Refused(status, {"error": "Said by the API.", "code": "x"})

    page = refused(rf.get("/console/x"))
    assert page.status_code == status
    assert ("Said by the API." in text_of(page)) == (status != 404)
    assert "style.css" in page.content.decode()


def test_pages_and_forms_that_come_too_often_say_when_to_try_again(cast, settings):
    settings.THROTTLES_ENABLED = True
    form = {"email": cast.admin.email, "password": "not the password"}
    shown = [visitor().post("/console/sign-in", form) for _ in range(11)][-1]
    assert shown.status_code == 429
    assert cast.admin.email in shown.content.decode()
    assert int(shown["Retry-After"]) > 0
    url = f"/console/connections/{add_connection(cast)}/connect"
    page = [visitor(cast.admin).post(url) for _ in range(11)][-1]
    assert page.status_code == 429
    assert int(page["Retry-After"]) > 0


@pytest.mark.parametrize(
    ("path", "form", "status"),
    [
        ("environments/{environment_id}/budgets/new", {"noticeAtPct": "9" * 5000}, 400),
        ("pools/{pool_id}", {"add": "\u0663"}, 400),
        ("environments/{environment_id}/hosts/new", {"revoke": "\u202e/../x"}, 404),
        ("environments/{environment_id}/machines/new/{key_id}", {}, 404),  # a key for programs
    ],
)
def test_what_no_form_of_ours_sends_is_refused_by_a_page(path, form, status, stage):
    page = visitor(stage.cast.owner).post(f"/console/{path.format(**stage.ids)}", form)
    assert page.status_code == status
    assert "style.css" in page.content.decode()


def test_headers_of_htmx_may_say_anything(cast):
    headers = {"HX-Request": "true", "HX-Current-URL": "http://["}
    to = visitor().get("/console/environments", headers=headers)["HX-Redirect"]
    assert to == "/console/sign-in?next=%2F%5B"
    form = {"email": cast.owner.email, "password": PASSWORD, "next": "/console/\r\nX-A: b"}
    to = visitor().post("/console/sign-in", form, headers=headers)["HX-Redirect"]
    assert to == "/console/%0D%0AX-A:%20b"


def test_a_path_without_a_page_and_a_crash_are_pages_too(client, cast, monkeypatch):
    assert "There is no such page" in text_of(client.get("/console/nothing"))
    monkeypatch.setattr(asking, "resolve", None)
    client = visitor(cast.owner)
    client.raise_request_exception = False
    page = client.get("/console/environments")
    assert page.status_code == 500
    assert "Something broke" in text_of(page)


@cases("page", PAGES)
def test_the_links_of_mails_lead_to_pages_that_there_are(page):
    assert resolve(urlsplit(link_to_page(page, new_id(), new_id())).path).namespace == "console"


def test_no_other_method_does_anything(client):
    assert client.put("/console/sign-in").status_code == 405


def test_one_environment_opens_itself_and_several_are_chosen(cast):
    owner = visitor(cast.owner)
    (to,) = {owner.get("/console/")["Location"]}
    assert to == f"/console/environments/{cast.environment.id}"
    new = visitor(UserFactory.create()).get("/console/", follow=True)
    assert new.redirect_chain[-1][0] == "/console/workspaces/new"


def test_a_new_user_makes_a_workspace_and_an_environment(cast):
    client = visitor(UserFactory.create())
    assert "your company or team" in text_of(client.get("/console/workspaces/new"))
    wrong = client.post("/console/workspaces/new", {"name": "\u202e"})
    assert wrong.status_code == 400
    assert 'aria-invalid="true"' in wrong.content.decode()
    made = client.post("/console/workspaces/new", {"name": "Acme"})
    assert re.fullmatch("/console/workspaces/[0-9a-f-]+/environments/new", made["Location"])
    opened = client.post(made["Location"], {"name": "production"}, follow=True)
    assert "Nothing is due" in text_of(opened)
    assert "/machines/new" in opened.content.decode()


def test_pages_are_compressed(cast):
    url = f"/console/environments/{cast.environment.id}/triggers"
    page = visitor(cast.viewer).get(url, headers={"accept-encoding": "gzip"})
    assert page["Content-Encoding"] == "gzip"
    assert b"<h1" in gzip.decompress(page.content)


def test_who_may_not_do_what_a_page_offers_is_told_whom_to_ask(cast):
    url = f"/console/environments/{cast.environment.id}/pools/new"
    told = text_of(visitor(cast.viewer).get(url))
    whom = "|".join(re.escape(each.email) for each in (cast.admin, cast.owner))
    assert re.search(f"You are a viewer here, and can’t change this; ask ({whom})", told)
    assert "can’t change this" not in text_of(visitor(cast.admin).get(url))


def test_chips_say_how_many_rows_they_keep_unless_other_filters_stay(cast):
    runs, viewer = Runs.of(cast), visitor(cast.viewer)
    for status in ("failed", "failed", "succeeded"):
        runs.ended(status)
    cast.add_trigger(enabled=False)
    pages = {"triggers": "Paused 1", "runs": "Failed 2", "machines": "Offline 1"}
    for name, said in pages.items():
        path = f"/console/environments/{cast.environment.id}/{name}"
        assert said in text_of(viewer.get(path)), name
    path = f"/console/environments/{cast.environment.id}/runs"
    page = viewer.get(path, {"source": "manual", "status": "failed", "cursor": ""})
    html = page.content.decode()
    assert 'href="?source=manual&amp;status=succeeded"' in html
    assert 'aria-current="true">As in the link' in html
    assert "Succeeded 1" not in text_of(page)
    chosen = viewer.get(path, {"status": "failed,timed_out"}).content.decode()
    assert 'aria-current="true">Failed <span class="count">2</span>' in chosen
    assert '<input type="hidden" name="status" value="failed,timed_out">' in chosen
    wrong = viewer.get(path, {"status": "x"})
    assert (wrong.status_code, 'class="wrong"' in wrong.content.decode()) == (400, True)
