"""A run's page and the list of runs in a real browser: they follow what happens, and leave whoever reads alone."""

import json
import urllib.request

import pytest

from console.tests.test_browser import browsing, look_at, sign_in
from testing.world.cast import session_cookie
from testing.world.tool_calls import CALL
from triggers.models import Trigger

pytestmark = pytest.mark.long

HOSTILE = "<img src=x onerror=alert(1)> \x1b[31mred \u202eexe"
SEEN = r"<img src=x onerror=alert(1)> \u001b[31mred \u202eexe"


@pytest.fixture
def tell(committed_stage, server):
    """Returns a function that calls the API as the worker that executes the running run. The test has no database."""
    Trigger.objects.filter(id=committed_stage.cast.trigger_id).update(record_events="always")
    worker, run_id = committed_stage.cast.worker, committed_stage.runs["running"]

    def call(verb, **body):
        request = urllib.request.Request(
            f"{server.url}/api/v1/workers/{worker.worker_id}/runs/{run_id}/{verb}",
            data=json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {worker.worker_token}",
                "Content-Type": "application/json",
            },
        )
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    return call


def event(seq, text=HOSTILE):
    return {"seq": seq, "at": "2026-05-04T12:00:00.000Z", "type": "message", "text": text}


def called(seq):
    data = {"callId": CALL["callId"], "tool": "send_mail", "input": {"to": "team"}}
    return {**event(seq, "send_mail"), "type": "tool_call", "data": data}


def test_a_run_is_followed_live_and_a_hidden_tab_reads_on_where_it_was(
    committed_stage, server, tell
):
    cookie, run_id = session_cookie(committed_stage.cast.operator), committed_stage.runs["running"]
    with browsing(server) as page:
        sign_in(page, cookie)
        page.goto(f"runs/{run_id}")
        tell("events", events=[event(1)])
        words = page.locator(".trace .words p")
        words.nth(0).wait_for()
        assert words.nth(0).inner_text() == SEEN
        assert page.query_selector(".trace img") is None

        hide(page, True)
        tell("events", events=[event(2, "x" * 200_000)])
        with page.expect_request("**/runs/*/events/stream") as again:
            hide(page, False)
        assert again.value.headers["last-event-id"] == "1"
        page.wait_for_selector(".trace .words a:has-text('Show it whole')")
        assert words.nth(1).inner_text() == "x" * 2000 + " Show it whole"

        tell("events", events=[called(3)])
        page.click(".trace summary:has-text('send_mail')")
        tell("events", events=[event(4, "I have sent it.")])
        words.nth(2).wait_for()
        page.wait_for_selector(".trace details[open]")  # It stays open as the trace grows.

        tell(
            "complete",
            status="failed",
            faultClass="client",
            errorMessage=f"{HOSTILE}\nat line 2",
            output={"answer": HOSTILE},
            costUsd="0.0312",
            toolCalls={"total": 1, "effects": 1, "unknown": 0},
            toolCallList=[CALL],
        )
        page.wait_for_selector("#live .badge:has-text('Failed')")
        assert "$0.03" in page.inner_text("#live .facts")
        assert page.inner_text("#error") == f"{SEEN}\nat line 2"
        assert words.count() == 3
        look_at(page, "run-failed")
        page.click("text=Rerun")
        page.wait_for_selector("text=send_mail")
        look_at(page, "rerun-effects")


def test_the_focus_stays_where_it_is_when_a_part_is_drawn_anew(committed_stage, server, tell):
    cookie, run_id = session_cookie(committed_stage.cast.operator), committed_stage.runs["running"]
    with browsing(server) as page:
        sign_in(page, cookie)
        page.goto(f"runs/{run_id}")
        words = page.locator(".trace .words")
        links = ("#menu a >> nth=2", "text=Cancel the run", "main dd a >> nth=0")
        for seq, selector in enumerate(links, 1):
            page.focus(selector)
            had = page.evaluate("document.activeElement.href")
            tell("events", events=[event(seq)])
            words.nth(seq - 1).wait_for()
            page.wait_for_function("had => document.activeElement.href === had", arg=had)
        page.focus("text=Cancel the run")
        tell("complete", status="failed", faultClass="client", errorMessage="No token")
        page.wait_for_selector("#live .badge:has-text('Failed')")
        page.wait_for_function("document.activeElement.closest('main')")


def hide(page, is_hidden):
    """Hides the tab, or shows it again. A headless browser's own tabs are always seen."""
    page.evaluate(
        """hidden => {
            Object.defineProperty(document, "hidden", {value: hidden, configurable: true});
            document.dispatchEvent(new Event("visibilitychange", {bubbles: true}));
        }""",
        is_hidden,
    )


def test_a_list_that_is_in_use_waits_behind_a_button(committed_stage, server, tell):
    cookie = session_cookie(committed_stage.cast.operator)
    with browsing(server) as page:
        sign_in(page, cookie)
        page.add_init_script(
            "addEventListener('htmx:afterSettle', () => { document.body.dataset.renewed = 'once'; })"
        )
        page.goto("environments/{environment_id}/runs".format(**committed_stage.ids))
        # When the stream has begun, the page reads the list once more.
        page.wait_for_selector("body[data-renewed]")
        page.focus("#live a")
        tell("complete", status="failed", faultClass="client", errorMessage="No token")
        page.click("text=Show 1 new")
        page.wait_for_selector("#live .badge:has-text('Failed')")
        assert page.locator(".news button").count() == 0


def test_without_a_script_a_page_shows_what_there_is(committed_stage, server, tell):
    tell("events", events=[event(1)])
    cookie, run_id = session_cookie(committed_stage.cast.operator), committed_stage.runs["running"]
    with browsing(server, java_script_enabled=False) as page:
        sign_in(page, cookie)
        page.goto(f"runs/{run_id}")
        assert page.inner_text(".trace .words p") == SEEN
        page.click("text=Cancel the run")
        page.click("button:has-text('Cancel the run')")
        page.wait_for_url(f"**/runs/{run_id}")
        assert "was asked to cancel it" in page.inner_text("main")
