"""What a new user does first, in a browser, by what the pages say: from registering to being told of a failure.

Each job takes five clicks at most, with and without JavaScript.
"""

from contextlib import contextmanager

import httpx
import pytest
from django.db import connection

from console.tests.test_browser import browsing
from testing.processes.worker_process import until
from testing.world.cast import session_cookie
from testing.world.database_copy import end_sessions, run_outside
from testing.world.users import PASSWORD

pytestmark = pytest.mark.long

MOST_CLICKS = 5


class Person:
    """Somebody who clicks. A choice from a list is a click, too."""

    def __init__(self, page, scripts):
        self.page, self.scripts, self.clicks = page, scripts, 0

    @contextmanager
    def job(self, name):
        self.clicks = 0
        yield
        assert self.clicks <= MOST_CLICKS, name

    def click(self, words):
        self.clicks += 1
        self.page.click(words)

    def fill(self, **fields):
        for name, value in fields.items():
            self.page.fill(f"[name={name}]", value)

    def sees(self, words):
        """Waits until the page says so. Without JavaScript the person loads it anew."""
        if not self.scripts and not self.page.locator(words).count():
            self.click_reload()
        self.page.wait_for_selector(words)

    def click_reload(self):
        self.clicks += 1
        self.page.reload()


class Machine:
    """The calls of the machine that somebody adds, by the token that the page shows."""

    def __init__(self, url, token):
        self._url, self._headers = f"{url}/api/v1/workers", {}
        made = self.call("/register", token=token, hostname="laptop", os="linux", version="1.0.0")
        self._headers = {"Authorization": f"Bearer {made['workerToken']}"}
        self.id = made["workerId"]

    def call(self, path, method="POST", **body):
        with httpx.Client(headers=self._headers, timeout=60, trust_env=False) as client:
            sent = client.request(method, self._url + path, json=body or None)
        return sent.raise_for_status().json()

    def polled(self):
        return self.call(f"/{self.id}/poll", "GET")["runs"]

    def begin(self):
        """Takes the run that waits, and begins it."""
        (run,) = self.polled()
        self.call(f"/{self.id}/runs/{run['id']}/claim", start=True)
        return run["id"]

    def end(self, run_id, **report):
        self.call(f"/{self.id}/runs/{run_id}/complete", **report)


@pytest.mark.parametrize("scripts", [True, False], ids=["with-javascript", "without"])
def test_a_new_user_gets_from_registering_to_being_told_of_a_failure(server, tmp_path, scripts):
    with browsing(server, tmp_path, java_script_enabled=scripts) as page:
        ada = Person(page, scripts)
        page.goto("/")
        with ada.job("register, and make the first environment"):
            ada.click("text=Register")
            ada.fill(name="Ada", email="ada@example.com", password=PASSWORD)
            ada.click("main button")
            ada.click("text=Make your first workspace")
            ada.fill(name="Acme")
            ada.click("main button")
            ada.fill(name="production")
            ada.click("main button")

        with ada.job("enrol a machine, and see it arrive"):
            ada.click("text=Add a machine")
            ada.fill(name="laptop")
            ada.click("text=Make its key")
            lines = page.inner_text("pre")
            assert "pipedai-worker run" in lines
            laptop = Machine(server.url, lines.partition("TOKEN=")[2].partition(" ")[0])
            laptop.polled()
            if not scripts:
                ada.click("text=Check again")
            page.wait_for_selector("#arrival:has-text('Connected')")

        with ada.job("make the first trigger, and try it"):
            ada.click("text=Give it a trigger")
            ada.fill(
                name="Morning report",
                prompt="Say what happened overnight.",
                mcpUrl="https://mcp.example.com/mcp",
                timezone="Europe/Berlin",
                schedule="0 6 * * mon-fri",
            )
            if not scripts:
                ada.click("text=Show the next due times")
            page.wait_for_selector(".coming li >> nth=4")
            assert "Monday through Friday" in page.inner_text(".preview")
            ada.click("text=Make the trigger")
            page.wait_for_selector(".times .badge:has-text('To come') >> nth=4")
            ada.click("text=Run now")

        with ada.job("see it run, live"):
            page.wait_for_selector("#live .badge:has-text('Queued')")
            run_id = laptop.begin()
            ada.sees(".badge:has-text('Running')")
            laptop.end(run_id, status="succeeded", shortMessage="Nothing happened overnight.")
            ada.sees("text=Nothing happened overnight.")

        with ada.job("let somebody be told"):
            ada.click("nav >> text=Settings")
            ada.click("text=Channels")
            ada.click("text=Tell somebody by mail")
            ada.fill(name="Me", emails="ada@example.com")
            ada.click("text=Make the channel")
            ada.click("text=Send a test")
            page.wait_for_selector("tr:has-text('A test')")

        with ada.job("hear that it failed, and why"):
            if scripts:
                for keys in (["Enter"], ["ArrowDown", "Enter"]):
                    page.click("nav >> text=Attention")
                    page.wait_for_url("**/attention", wait_until="load")
                    page.keyboard.press("Control+k")
                    page.keyboard.type("morning")
                    if len(keys) > 1:
                        page.wait_for_selector("#find .found a:has-text('Morning report')")
                    for key in keys:
                        page.keyboard.press(key)
                    page.wait_for_selector("h1:has-text('Morning report')")
            else:
                ada.click("nav >> text=Triggers")
                ada.click("text=Morning report")
            ada.click("text=Run now")
            page.wait_for_selector("#live .badge:has-text('Queued')")
            laptop.end(
                laptop.begin(),
                status="failed",
                faultClass="client",
                errorMessage="The MCP server refused the token.",
            )
            ada.click("nav >> text=Attention")
            assert "1 thing needs you" in page.inner_text("h1")
            assert "The MCP server refused the token." in page.inner_text(".items")
            assert "ada@example.com" in page.inner_text(".told")
            ada.click("text=Open the run")
            assert "Failed" in page.inner_text("#live")


def test_a_page_says_so_while_the_database_is_away(committed_cast, own_database, server):
    cookies = {"auth_token": session_cookie(committed_cast.owner)}
    connection.close()  # Otherwise it would be ended below.
    url = f"{server.url}/console/environments"

    def status():
        return httpx.get(url, cookies=cookies, trust_env=False, timeout=60).status_code

    assert status() == 200
    run_outside(f'ALTER DATABASE "{own_database}" ALLOW_CONNECTIONS false')
    try:
        end_sessions(own_database)
        until(lambda: status() == 503)
        page = httpx.get(url, cookies=cookies, trust_env=False, timeout=60)
        assert page.headers["content-type"].startswith("text/html")
        assert "Unavailable" in page.text
    finally:
        run_outside(f'ALTER DATABASE "{own_database}" ALLOW_CONNECTIONS true')
    until(lambda: status() == 200)
