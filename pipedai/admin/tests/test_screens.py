"""The admin in a real browser: pages fit wide and narrow windows, three clicks lead from a customer's address to the
reason why a run waits, and a support action leads to its audit row.

Screenshots go to the directory that PIPEDAI_SCREENSHOTS names. Without it there are none.
"""

import re

import pytest

from accounts.emails import Email
from accounts.services import create_staff
from pipedai.events import SYSTEM
from testing.processes.browser import chromium, cut_off, screenshot, sideways_overflow
from testing.world.budgets import add_budget
from testing.world.busy_day import make_busy_day
from triggers.models import Run, Tick

pytestmark = pytest.mark.long

EMAIL, SECRET = Email("support@example.com"), "a staff password of the tests"
WIDTHS = (1280, 390)
# This finds JSON on a page, where a table should be instead.
RAW_JSON = re.compile(r"""\{\s*["'][\w-]+["']\s*:""")


@pytest.fixture(autouse=True)
def _instant_passwords():
    """Turns the fast hashes of other tests off, because the served process verifies only real ones."""


@pytest.fixture
def pages(committed_cast):
    """Fills the database with a busy day, and returns the paths of the pages by name."""
    create_staff(email=EMAIL, password=SECRET, name="Support", actor=SYSTEM)
    add_budget(committed_cast, limit_usd="1000")
    run_id = make_busy_day(committed_cast)
    waiting = Run.objects.filter(status="queued").first()
    tick = Tick.objects.order_by("-tick_at").first()
    assert waiting is not None
    assert tick is not None
    return {
        "start": "/admin/",
        "run": f"/admin/triggers/run/{run_id}/",
        "waiting": f"/admin/triggers/run/{waiting.id}/",
        "runs": "/admin/triggers/run/",
        "user": f"/admin/accounts/user/{committed_cast.owner.id}/",
        "users": "/admin/accounts/user/?q=example",
        "environments": "/admin/workspaces/environment/",
        "environment": f"/admin/workspaces/environment/{committed_cast.environment.id}/",
        "pause": f"/admin/workspaces/environment/{committed_cast.environment.id}/pause/",
        "workspace": f"/admin/workspaces/workspace/{committed_cast.workspace.id}/",
        "memberships": "/admin/workspaces/membership/",
        "workers": "/admin/workers/worker/",
        "ticks": "/admin/triggers/tick/",
        "tick": f"/admin/triggers/tick/{tick.id}/",
        "triggers": "/admin/triggers/trigger/",
        "deliveries": "/admin/triggers/delivery/",
        "trigger": f"/admin/triggers/trigger/{waiting.trigger_id}/",
        "move": f"/admin/triggers/trigger/{waiting.trigger_id}/move/",
        "worker": f"/admin/workers/worker/{committed_cast.worker.worker_id}/",
        "budgets": "/admin/triggers/budget/",
        "audit": "/admin/audit/auditentry/",
        "account": "/admin/account/",
        "docs": "/api/docs",
    }


def test_pages_fit_three_clicks_find_a_reason_and_a_support_action_is_audited(
    pages, committed_cast, server, tmp_path
):
    address = committed_cast.owner.email
    complaints: list[str] = []
    with chromium(tmp_path) as browser:
        page = browser.new_page(viewport={"width": WIDTHS[0], "height": 900})
        page.set_default_timeout(60_000)  # A busy machine draws slowly.
        page.on("console", lambda said: complaints.append(f"{page.url}: {said.text}"))
        page.on("pageerror", lambda error: complaints.append(f"{page.url}: {error}"))
        page.goto(f"{server.url}/admin/")
        screenshot(page, "login-1280")
        log_in(page)
        for number, (name, path) in enumerate(pages.items()):
            # One page is opened in a wide window, and the next one in a narrow window. Then the window is resized.
            widths = WIDTHS[:: (-1) ** number]
            page.set_viewport_size({"width": widths[0], "height": 900})
            answer = page.goto(server.url + path, wait_until="load")
            assert answer is not None
            assert answer.status == 200, name
            for width in widths:
                page.set_viewport_size({"width": width, "height": 900})
                page.wait_for_timeout(100)
                screenshot(page, f"{name}-{width}", full_page=True)
                assert sideways_overflow(page) == [], (name, width)
                assert cut_off(page) == [], (name, width)
            if name != "docs":
                assert not RAW_JSON.search(page.inner_text("#content")), name
        page.set_viewport_size({"width": WIDTHS[0], "height": 900})
        find_why_a_run_waits(page, server.url, address)
        disable_the_worker(page, server.url + pages["worker"])
    assert complaints == []


def log_in(page):
    page.fill("[name=email]", EMAIL)
    page.fill("[name=password]", SECRET)
    with page.expect_navigation():
        page.click("text=Log in >> visible=true")
    # We don't wait for this text, so that a failure shows at once what the page says instead.
    assert "Workers online" in page.inner_text("body")


def find_why_a_run_waits(page, url, address):
    """Does what staff do who have a customer's address: types it at the start page, and clicks three times."""
    page.goto(f"{url}/admin/")
    page.fill("[name=q]", address)
    with page.expect_navigation():
        page.keyboard.press("Enter")
    clicks = (
        f"#result_list a:has-text('{address}')",
        "tr:has-text('production') a:has-text('Runs')",
        "tr:has-text('queued') .staff-short a >> nth=0",
    )
    for link in clicks:
        with page.expect_navigation():
            page.click(f"{link} >> visible=true")
    told = page.inner_text("#content")
    assert "Waits for worker host-1, which has never called." in told
    assert "Start the worker program on host-1" in told
    page.click(".staff-copy >> nth=0")
    page.wait_for_selector(".staff-copy:has-text('check')")


def disable_the_worker(page, url):
    page.goto(url)
    page.click("text=Disable the worker")
    screenshot(page, "confirm-1280")
    page.click("button:has-text('Disable the worker')")
    page.wait_for_selector("text=The worker is disabled.")
    page.click("a:has-text('worker.updated')")
    entry = page.inner_text("#content")
    assert f"staff {EMAIL}" in entry
    assert re.search(r"disabled\s+no → yes", entry)
