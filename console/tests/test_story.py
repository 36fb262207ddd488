"""What a new user does, in a browser, by what the pages say: from registering to a run that an event starts.

With the mouse, with and without JavaScript, and by the keyboard alone. The machine is the real worker, started by the
lines that the page shows, with the stand-in as its claude.
"""

import os
import re
import shlex
import subprocess
import sys
from contextlib import ExitStack, contextmanager, nullcontext

import httpx
import pytest
from django.db import connection

from console.tests.test_browser import browsing
from pipedai.env import BASE_DIR
from pipedai_worker.stand_in import COMMAND
from testing.processes.tools_server import tools_server
from testing.processes.web_process import free_port
from testing.processes.worker_process import until
from testing.world.cast import session_cookie
from testing.world.database_copy import end_sessions, run_outside
from testing.world.users import PASSWORD

pytestmark = pytest.mark.long

# In one job, and until the first run is seen as it happens.
MOST_CLICKS, MOST_CLICKS_TO_A_RUN, MOST_LINES = 5, 12, 3
# How often somebody presses Tab before they give up.
MOST_TABS = 120
LOGGED_IN = {"CLAUDE_CODE_OAUTH_TOKEN": "the stand-in asks for none"}
SECRET = "a-secret-that-ada-has-made-up"


class Person:
    """Somebody who clicks. A choice from a list is a click, too."""

    def __init__(self, page, scripts):
        self.page, self.scripts, self.clicks, self.lines = page, scripts, 0, 0

    @contextmanager
    def job(self, name):
        before = self.clicks
        yield
        assert self.clicks - before <= MOST_CLICKS, name

    def press(self, name, *, stays=False):
        """Presses the first link or button whose name begins so. It leads to another page unless it `stays`."""
        self.clicks += 1
        with nullcontext() if stays else self.page.expect_navigation():
            self._press(name)

    def _press(self, name):
        link, button = (
            self.page.get_by_role(role, name=re.compile(f"^{re.escape(name)}"))
            for role in ("link", "button")
        )
        link.or_(button).first.click()

    def fill(self, fields):
        """Types into fields, by their labels."""
        for label, value in fields.items():
            self._fill(label, value)

    def _fill(self, label, value):
        labelled = self.page.get_by_label(re.compile(f"^{label}"))
        self.page.locator("input, textarea").and_(labelled).first.fill(value)

    def sees(self, words):
        """Waits until the page says so. Without JavaScript the person knows when to load it anew."""
        if not self.scripts and not self.page.locator(words).count():
            self.clicks += 1
            until(lambda: self.page.reload() and self.page.locator(words).count(), pause=1.5)
        self.page.wait_for_selector(words)

    def copies(self, selector):
        lines = self.page.inner_text(selector).splitlines()
        self.lines += len(lines)
        return lines


class KeyboardPerson(Person):
    """Somebody without a mouse, who must always see where the focus is."""

    def __init__(self, page, scripts):
        super().__init__(page, scripts)
        self._session = page.context.new_cdp_session(page)

    def _press(self, name):
        self.go_to(name, "link", "button")
        self.page.keyboard.press("Enter")

    def _fill(self, label, value):
        self.go_to(label, "textbox", "combobox", "searchbox", "spinbutton")
        self.page.keyboard.press("Control+a")
        self.page.keyboard.type(value)

    def go_to(self, name, *roles, key="Tab"):
        """Presses Tab until what has the focus is called so."""
        passed = []
        for _ in range(MOST_TABS):
            role, called = self.focused()
            if called.startswith(name) and (not roles or role in roles):
                return
            passed.append(f"{role} {called}")
            self.page.keyboard.press(key)
            self._must_see_the_focus()
        raise AssertionError(f"{key} does not reach {name!r}, but {passed}")

    def sees(self, words):
        had = self.page.evaluate("document.activeElement !== document.body")
        where = self.page.url
        super().sees(words)
        if had and self.page.url == where:
            assert self.focused()[0] != "RootWebArea", f"the focus was lost for {words}"

    def focused(self):
        """Returns the role and the name of what has the focus, as the browser tells them to a screen reader."""
        found = self._session.send("Runtime.evaluate", {"expression": "document.activeElement"})
        of = {"objectId": found["result"]["objectId"], "fetchRelatives": False}
        (node,) = self._session.send("Accessibility.getPartialAXTree", of)["nodes"]
        role, name = (node.get(each, {}).get("value", "") for each in ("role", "name"))
        return role, name.strip()

    def _must_see_the_focus(self):
        """The focus has an outline, and nothing lies over it."""
        wrong = self.page.evaluate(
            """() => {
                const at = document.activeElement, style = getComputedStyle(at);
                if (at === document.body) return "";
                const { left, top, width, height } = at.getClientRects()[0];
                const over = document.elementFromPoint(left + width / 2, top + Math.min(height / 2, 16));
                const isSeen = over && (at.contains(over) || over.contains(at));
                const isMarked = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
                return isSeen && isMarked ? "" : `${at.outerHTML.slice(0, 200)} is ${isMarked ? "" : "not marked"} `
                    + (isSeen ? "" : `below ${over?.outerHTML.slice(0, 200)}`);
            }"""
        )
        assert not wrong, wrong


class Machine:
    """Where somebody pastes the lines of the page. Its claude is the stand-in, and pipedai-worker is installed."""

    def __init__(self, home):
        programs = home / "bin"
        programs.mkdir(parents=True)
        worker = f'PYTHONPATH="{BASE_DIR / "agent"}" exec "{sys.executable}" -m pipedai_worker "$@"'
        scripts = {"pipedai-worker": worker, "claude": f'exec {shlex.join(COMMAND)} "$@"'}
        for name, script in scripts.items():
            (programs / name).write_text(f"#!/bin/sh\n{script}\n")
            (programs / name).chmod(0o755)
        path = os.pathsep.join([str(programs), os.environ["PATH"]])
        self._started = {"cwd": home, "env": {"HOME": str(home), "PATH": path, **LOGGED_IN}}
        self.log = home / "worker.log"

    def paste(self, *lines):
        done = subprocess.run(
            ["sh", "-ec", "\n".join(lines)], capture_output=True, text=True, **self._started
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def pasted(self, line):
        """Runs a line for the time of the block."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                ["sh", "-c", f"exec {line}"], stdout=log, stderr=log, **self._started
            )
            try:
                yield
            finally:
                process.terminate()
                process.wait()


@pytest.mark.parametrize(
    ("kind", "scripts"),
    [(Person, True), (Person, False), (KeyboardPerson, True)],
    ids=["with-javascript", "without", "by-keyboard"],
)
def test_a_new_user_gets_from_registering_to_a_run_that_an_event_starts(
    server, tmp_path, kind, scripts
):
    laptop, tools_port, begun = Machine(tmp_path / "laptop"), free_port(), tmp_path / "begun"
    # What stops when the story is over. The tools stop and start in between.
    with (
        ExitStack() as working,
        ExitStack() as tools,
        browsing(server, java_script_enabled=scripts) as page,
    ):
        url = tools.enter_context(tools_server(tools_port))
        ada = kind(page, scripts)
        page.goto("/")
        with ada.job("register, and make the first environment"):
            ada.press("Register")
            ada.fill({"Name": "Ada", "E-mail": "ada@example.com", "Password": PASSWORD})
            ada.press("Register")
            ada.fill({"Name": "Acme"})
            ada.press("Make the workspace")
            ada.fill({"Name": "production"})
            ada.press("Make the environment")

        with ada.job("enrol a machine, and see it arrive"):
            ada.press("Add a machine")
            ada.fill({"Name": "laptop"})
            ada.press("Make its key")
            page.wait_for_selector("pre")
            install, register, run = ada.copies("pre")
            (package,) = re.findall(r"http[^']+", install)
            assert httpx.get(package, trust_env=False).status_code == 200
            laptop.paste(register)
            working.enter_context(laptop.pasted(run))
            until(lambda: "connected to" in laptop.log.read_text())
            if not scripts:
                ada.press("Check again")
            ada.sees("#arrival:has-text('Connected')")

        with ada.job("make the first trigger, and try it"):
            ada.press("Give it a trigger")
            ada.fill(
                {
                    "Name": "Morning report",
                    "Prompt": f"Say what happened overnight.\nstandin: wait-for {begun}\nstandin: call local_time",
                    "URL of the MCP server": url,
                    "Schedule": "0 6 * * mon-fri",
                    "Time zone": "Europe/Berlin",
                }
            )
            if not scripts:
                ada.press("Show the next due times")
            page.wait_for_selector(".coming li >> nth=4")
            assert "Monday through Friday" in page.inner_text(".preview")
            ada.fill({"Retries": "0"})
            ada.press("Make the trigger")
            page.wait_for_selector(".times .badge:has-text('To come') >> nth=4")
            ada.press("Run now")

        with ada.job("see it run, live"):
            page.wait_for_selector("#live .badge")
            ada.sees("#live .lead .badge:has-text('Running')")
            assert ada.clicks <= MOST_CLICKS_TO_A_RUN
            assert ada.lines <= MOST_LINES
            begun.touch()
            ada.sees("#live .lead .badge:has-text('Succeeded')")
            assert "local_time" in page.inner_text(".trace")

        with ada.job("let somebody be told"):
            ada.press("Settings")
            ada.press("Channels")
            ada.press("Tell somebody by mail")
            ada.fill({"Name": "Me", "Addresses": "ada@example.com"})
            ada.press("Make the channel")
        with ada.job("try whether it arrives"):
            ada.press("Send a test")
            page.wait_for_selector("tr:has-text('A test')")

        with ada.job("run it when its tools are gone"):
            tools.close()
            ada.press("Triggers")
            ada.press("Morning report")
            ada.press("Run now")
            page.wait_for_selector("#live .badge")
            ada.sees("#live .lead .badge:has-text('Failed')")
        with ada.job("hear that it failed, and why"):
            ada.press("Attention")
            ada.sees("h1:has-text('1 thing needs you')")
            assert "ada@example.com" in page.inner_text(".told")
            ada.press("Open the run")
            ada.sees("#error:has-text('it refused the connection')")

        with ada.job("let each call wait for somebody"):
            tools.enter_context(tools_server(tools_port))
            ada.press("Morning report")
            ada.press("Edit")
            ada.press("Add a rule", stays=scripts)
            page.wait_for_selector("[name='approvals.0.tools']:focus")
            ada.fill({"Tools": "*"})
            ada.press("Save")
        with ada.job("see it wait"):
            ada.press("Run now")
            page.wait_for_selector("#live .badge")
            ada.sees("#live .lead .badge:has-text('Waiting')")
        with ada.job("read what it is to do, and let it"):
            ada.press("Approvals")
            ada.press("local_time")
            ada.sees("h1:has-text('May it call local_time?')")
            ada.press("Approve this call, once")
            page.wait_for_selector(".badge:has-text('Approved')")
            ada.press("run")
            ada.sees("#live .lead .badge:has-text('Succeeded')")

        with ada.job("make a source of events"):
            ada.press("Settings")
            ada.press("Sources")
            ada.press("Another HMAC-SHA256")
            ada.fill({"Name": "Shop", "Secret": SECRET, "Header of the signature": "X-Signature"})
            ada.press("Make the source")
        with ada.job("let an event start a trigger"):
            where = page.url
            lines = "\n".join(ada.copies("#try")).replace("the secret", SECRET)
            ada.press("Make a trigger that it starts")
            ada.fill({"Name": "Order", "Prompt": "Say what was ordered."})
            ada.press("Make the trigger")
            page.wait_for_selector("dt:has-text('Event')")
            laptop.paste(lines)
            ada.sees("td .badge:has-text('Succeeded')")
            page.goto(where)
            ada.sees("td .badge:has-text('Started a run')")


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
