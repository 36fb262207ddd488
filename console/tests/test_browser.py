"""The console in a real browser: axe finds nothing on any screen, wide and narrow, light and dark, and the jobs work.

Screenshots go to the directory that PIPEDAI_SCREENSHOTS names. Without it there are none.
"""

from contextlib import contextmanager
from typing import Literal

import pytest

from console.tests.screens import SCREENS
from testing.processes.browser import (
    COLOURS,
    axe_finds,
    chromium,
    load_axe,
    screenshot,
    sideways_overflow,
)
from testing.processes.grant_server import grant_server
from testing.processes.scheduler_process import scheduling
from testing.processes.web_process import serve
from testing.world.cast import session_cookie
from testing.world.users import PASSWORD
from workspaces.connections.tests.test_authorizing import add

pytestmark = pytest.mark.long

# The rules of axe that a narrow page can break: there our style sheet hides, moves and scrolls what a wide one shows.
NARROW = (
    "button-name",
    "link-name",
    "summary-name",
    "label",
    "select-name",
    "label-content-name-mismatch",
    "empty-heading",
    "empty-table-header",
    "page-has-heading-one",
    "th-has-data-cells",
    "aria-hidden-focus",
    "scrollable-region-focusable",
    "aria-required-children",
    "aria-required-parent",
    "list",
    "listitem",
    "skip-link",
    "bypass",
    "landmark-one-main",
    "nested-interactive",
)
# How each page is looked at: its colour scheme and width, and the rules that axe tries, which are all if none is named.
LOOKS: tuple[tuple[Literal["light", "dark"], int, tuple[str, ...]], ...] = (
    ("light", 1280, ()),
    ("dark", 1280, COLOURS),
    ("light", 390, (*NARROW, *COLOURS)),
)


@contextmanager
def browsing(server, **options):
    """Opens a browser's page below the served console, which must complain about nothing. The test has no database
    until it is closed.
    """
    complaints: list[str] = []
    with chromium() as browser:
        context = browser.new_context(base_url=f"{server.url}/console/", **options)
        page = context.new_page()
        page.set_default_timeout(60_000)  # A busy machine draws slowly.
        page.on("console", lambda said: complaints.append(f"{page.url}: {said.text}"))
        page.on("pageerror", lambda error: complaints.append(f"{page.url}: {error}"))
        yield page
    # Where htmx has moved the focus to a row already, Chromium says so.
    heard = [said for said in complaints if "Autofocus processing was blocked" not in said]
    assert heard == [], "\n".join(heard)


def sign_in(page, cookie):
    of_the_server = {"domain": "127.0.0.1", "path": "/"}
    page.context.add_cookies([{"name": "auth_token", "value": cookie, **of_the_server}])


def look_at(page, name):
    """Asserts that a page fits and that axe finds nothing on it, wide and narrow, light and dark."""
    for scheme, width, rules in LOOKS:
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)
        place = f"{name}-{width}-{scheme}"
        screenshot(page, f"console-{place}", full_page=True)
        assert sideways_overflow(page) == [], place
        assert axe_finds(page, *rules) == "", place


def test_every_screen_fits_and_axe_finds_nothing(committed_stage, server):
    cookie = session_cookie(committed_stage.cast.owner)
    with browsing(server) as page:
        load_axe(page)
        for screen in SCREENS:
            if screen.role == "nobody":
                page.context.clear_cookies()
            else:
                sign_in(page, cookie)
            answer = page.goto(screen.url(committed_stage), wait_until="load")
            assert answer.status == 200, screen.name
            look_at(page, screen.name)
        # The pages of links and of pairing are other apps', and look alike.
        for path in ("pair", "account/verify", "account/reset", "account/invitation"):
            page.goto(f"/{path}", wait_until="load")
            look_at(page, path.replace("/", "-"))


@pytest.mark.parametrize("scripts", [True, False], ids=["with-javascript", "without"])
def test_one_signs_in_by_the_keyboard_and_out(committed_cast, server, scripts):
    address = committed_cast.owner.email
    with browsing(server, java_script_enabled=scripts) as page:
        page.goto("/login")
        page.focus("[name=email]")
        page.keyboard.type(address)
        page.keyboard.press("Tab")
        page.keyboard.type(PASSWORD)
        page.keyboard.press("Enter")
        page.wait_for_url("**/attention")
        page.click("text=Account")
        page.click("text=Sign out")
        assert "You are signed out" in page.inner_text("h1")
        page.goto("/console/")
        page.wait_for_url("**/sign-in?next=*")


def test_a_list_renews_itself_when_something_has_changed(committed_stage, server):
    cookie = session_cookie(committed_stage.cast.owner)
    with browsing(server) as page:
        sign_in(page, cookie)
        with page.expect_response("**/events/stream"):
            page.goto("environments/{environment_id}/runs".format(**committed_stage.ids))
        page.wait_for_selector("#live .badge:has-text('Running')")
        # The page itself makes the call, since the test has no database.
        page.evaluate(
            "path => fetch(path, {method: 'POST', body: '{}', headers: {'Content-Type': 'application/json'}})",
            f"/api/v1/triggers/{committed_stage.cast.trigger_id}/run",
        )
        page.wait_for_selector("#live .badge:has-text('Queued')")


def test_what_somebody_has_chosen_stays_chosen_when_the_list_renews_itself(committed_stage, server):
    cookie = session_cookie(committed_stage.cast.owner)
    with browsing(server) as page:
        sign_in(page, cookie)
        with page.expect_response("**/events/stream"):
            page.goto("environments/{environment_id}/triggers".format(**committed_stage.ids))
        # The list may be on its way already when somebody chooses a row of it.
        with page.expect_response("**/triggers"):
            page.evaluate("htmx.trigger(document.getElementById('live'), 'refresh')")
            page.focus(".pick input")
            page.keyboard.press("Space")
        page.evaluate("htmx.trigger(document.getElementById('live'), 'refresh')")
        page.wait_for_selector(".htmx-request", state="detached")
        assert page.locator(".pick :checked").count() == 1
        assert page.evaluate("document.activeElement.matches('.pick :checked')")


def test_who_has_looked_for_something_is_back_at_the_same_link_of_a_renewed_list(
    committed_stage, server
):
    cookie = session_cookie(committed_stage.cast.owner)
    with browsing(server) as page:
        sign_in(page, cookie)
        with page.expect_response("**/events/stream"):
            page.goto("environments/{environment_id}/runs".format(**committed_stage.ids))
        focused = "document.activeElement.href"
        page.keyboard.press("j")
        page.keyboard.press("j")
        before = page.evaluate(focused)
        page.keyboard.press("Control+k")
        with page.expect_response("**/runs"):
            page.evaluate("htmx.trigger(document.getElementById('live'), 'refresh')")
        page.wait_for_selector(".htmx-request", state="detached")
        page.keyboard.press("Escape")
        page.wait_for_function(f"before => {focused} === before", arg=before)


def test_conditions_are_added_in_rows_and_what_was_typed_stays(committed_cast, server):
    cookie, environment_id = session_cookie(committed_cast.admin), committed_cast.environment.id
    with browsing(server) as page:
        sign_in(page, cookie)
        page.goto(f"environments/{environment_id}/triggers/new")
        page.fill("[name=name]", "Report")
        page.click("button[value='before.runIf']")
        page.fill("[name='before.runIf.0.path']", "/count")
        assert page.input_value("select[name='before.runIf']") == ""
        page.fill("[name='before.arguments.0.name']", "state")
        page.click("button[value='before.arguments']")
        page.wait_for_selector("[name='before.arguments.1.name']")
        assert page.input_value("[name='before.arguments.0.name']") == "state"
        page.click("text=Paste JSON instead >> visible=true")
        page.click("button[value='on']")
        page.click("button[value='on.0.where']")
        page.wait_for_selector("[name='on.0.where.0.path']")
        look_at(page, "rows")
        kept = [page.input_value(f"[name='{each}']") for each in ("name", "before.runIf.0.path")]
        assert kept == ["Report", "/count"]
        page.goto(f"environments/{environment_id}/settings/channels/new?kind=email")
        page.click("button[value=when]")
        page.wait_for_selector("[name='when.0.path']")
        look_at(page, "conditions")


def test_what_is_wrong_in_a_folded_part_unfolds_it(committed_cast, server):
    cookie, environment_id = session_cookie(committed_cast.admin), committed_cast.environment.id
    with browsing(server) as page:
        sign_in(page, cookie)
        page.goto(f"environments/{environment_id}/triggers/new")
        page.fill("[name=name]", "Report")
        page.fill("[name=prompt]", "Report.")
        more = page.locator("#where summary")
        more.click()
        page.fill("[name=startDeadlineSeconds]", "5")
        more.click()
        assert not page.is_visible("[name=startDeadlineSeconds]")
        page.click(".savebar button")
        page.wait_for_selector("[name=startDeadlineSeconds]:focus")


def test_three_clicks_connect_a_server_behind_oauth(
    committed_cast, own_database, tmp_path, settings
):
    """Our policies let the browser leave for the authorization server, and its way back finishes."""
    cookie = session_cookie(committed_cast.admin)
    allowed = {"WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8"}
    settings.WEBHOOK_ALLOWED_NETWORKS = tuple(allowed.values())
    with (
        grant_server(tmp_path) as authority,
        serve(own_database, log=tmp_path / "web.log", **allowed) as server,
        scheduling(own_database, log=tmp_path / "scheduler.log", **allowed),
    ):
        connection_id = add(committed_cast, authority.origin)
        with browsing(server) as page:
            sign_in(page, cookie)
            page.goto(f"connections/{connection_id}")
            page.click("button:has-text('Connect')")
            page.wait_for_selector("h1:has-text('Continue to')")
            look_at(page, "go-on")
            page.click("text=Continue to 127.0.0.1")
            page.wait_for_url("**/callback?*")
            look_at(page, "callback")
            page.click("button:has-text('Connect')")
            page.click("text=Back to the connection")
            page.wait_for_selector(".badge:has-text('Connected')")
            look_at(page, "connected")


def test_a_page_shows_a_machine_arrive_whose_lines_it_gave(committed_cast, server):
    cookie = session_cookie(committed_cast.admin)
    of_environment = f"environments/{committed_cast.environment.id}"
    with browsing(server) as page:
        sign_in(page, cookie)
        page.goto(f"{of_environment}/machines/new")
        page.fill("[name=name]", "laptop")
        page.click("text=Make its key")
        page.wait_for_selector("#arrival:has-text('Waiting for the machine')")
        assert axe_finds(page) == ""
        screenshot(page, "console-paste", full_page=True)
        token = page.inner_text("pre").partition("TOKEN=")[2].partition(" ")[0]
        body = {"token": token, "hostname": "laptop", "os": "linux", "version": "1.0.0"}
        # The page itself makes the machine's calls, since the test has no database.
        worker = page.evaluate(
            """async body => (await fetch('/api/v1/workers/register', {
                method: 'POST', body: JSON.stringify(body), headers: {'Content-Type': 'application/json'},
            })).json()""",
            body,
        )
        page.wait_for_selector("#arrival:has-text('Registered')")
        page.evaluate(
            """worker => fetch(`/api/v1/workers/${worker.workerId}/poll`, {
                credentials: 'omit', headers: {'Authorization': `Bearer ${worker.workerToken}`},
            })""",
            worker,
        )
        page.wait_for_selector("#arrival:has-text('Connected')")
