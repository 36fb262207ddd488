"""The staff pages in a real browser: axe finds nothing, three clicks lead from a customer's address to the reason why
a run waits, and a support action leads to its audit row.

Screenshots go to the directory that PIPEDAI_SCREENSHOTS names. Without it there are none.
"""

import pytest

from accounts.emails import Email
from accounts.services import create_staff
from pipedai.events import SYSTEM
from testing.processes.browser import axe_finds, chromium, screenshot
from testing.world.busy_day import make_busy_day

pytestmark = pytest.mark.long

# Django's own pages keep WCAG 2.1. They miss a best practice of axe's, since the search form's label is a picture, and
# the size of targets of WCAG 2.2.
WCAG = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa")
EMAIL, SECRET = Email("support@example.com"), "a staff password of the tests"


@pytest.fixture(autouse=True)
def _instant_passwords():
    """Turns the fast hashes of other tests off, because the served process verifies only real ones."""


def test_axe_finds_nothing_three_clicks_find_a_reason_and_a_support_action_is_audited(
    committed_cast, server
):
    create_staff(email=EMAIL, password=SECRET, name="Support", actor=SYSTEM)
    run_id = make_busy_day(committed_cast)
    worker = f"/admin/workers/worker/{committed_cast.worker.worker_id}/change/"
    environment = f"/admin/workspaces/environment/{committed_cast.environment.id}"
    complaints: list[str] = []
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(60_000)  # A busy machine draws slowly.
        page.on("console", lambda said: complaints.append(f"{page.url}: {said.text}"))
        page.on("pageerror", lambda error: complaints.append(f"{page.url}: {error}"))
        page.goto(f"{server.url}/admin/")
        assert axe_finds(page, *WCAG) == ""
        log_in(page)
        paths = (
            "/admin/", "/admin/account/", "/admin/triggers/run/", f"/admin/triggers/run/{run_id}/change/",
            f"{environment}/change/", f"{environment}/do/pause/", worker,
        )  # fmt: skip
        for path in paths:
            answer = page.goto(server.url + path, wait_until="load")
            assert answer is not None
            assert answer.status == 200, path
            screenshot(page, path.strip("/").replace("/", "-"), full_page=True)
            seen = len(complaints)
            assert axe_finds(page, *WCAG) == "", path
            del complaints[seen:]  # Our policy also forbids what axe itself tries.
        find_why_a_run_waits(page, server.url, committed_cast.owner.email)
        pause_the_worker(page, server.url + worker)
    assert complaints == [], "\n".join(complaints)


def log_in(page):
    page.fill("[name=email]", EMAIL)
    page.fill("[name=password]", SECRET)
    with page.expect_navigation():
        page.click("button:has-text('Log in')")
    # We don't wait for this text, so that a failure shows at once what the page says instead.
    assert "Open incidents" in page.inner_text("body")


def find_why_a_run_waits(page, url, address):
    """Does what staff do who have a customer's address: types it at the start page, and clicks three times."""
    page.goto(f"{url}/admin/")
    page.fill("[name=q]", address)
    with page.expect_navigation():
        page.keyboard.press("Enter")
    clicks = (
        f"#result_list a:has-text('{address}')",
        "tr:has-text('production') a:has-text('Runs')",
        "tr:has-text('queued') .field-id a >> nth=0",
    )
    for link in clicks:
        with page.expect_navigation():
            page.click(f"{link} >> visible=true")
    told = page.inner_text("#content")
    assert "Machine host-1 has never called." in told
    assert "Start the worker program on host-1" in told


def pause_the_worker(page, url):
    page.goto(url)
    page.click("text=Pause the worker")
    with page.expect_navigation():
        page.click("button:has-text('Pause the worker')")
    assert "Done: Pause the worker." in page.inner_text("body")
    page.click("a:has-text('History')")
    page.wait_for_selector("text=worker.updated")
    entry = page.inner_text("#content")
    assert f"staff {EMAIL}" in entry
    assert '"disabled": [false, true]' in entry
