"""A connection is authorized over real HTTP at a real authorization server, and its token lets a run in."""

import html
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest

from testing.probes.planted import plant
from testing.processes.grant_server import KNOWN_ID, KNOWN_SECRET
from testing.processes.scheduler_process import scheduling
from testing.processes.web_process import serve
from testing.processes.worker_process import until
from testing.world.cast import session_cookie
from workspaces.connections import secrets
from workspaces.connections.tests.test_authorizing import HOME, add
from workspaces.models import Authorization, Connection

_HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-03-26",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}


@pytest.fixture
def site(own_database, tmp_path, settings):
    """Serves the API with a single thread, so that whoever waits holds up everybody if they hold a thread."""
    settings.WEBHOOK_ALLOWED_NETWORKS = ("127.0.0.0/8",)
    log = tmp_path / "web.log"
    networks = {"WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8"}
    with (
        serve(own_database, log=log, WEB_THREADS="1", **networks) as server,
        scheduling(own_database, log=tmp_path / "scheduler.log", **networks),
    ):
        yield server


def browser_of(user, site, address="127.0.0.1"):
    """Returns the browser of a user who is signed in, at one of the loopback addresses."""
    return httpx.Client(
        base_url=site.url,
        cookies={"auth_token": session_cookie(user)},
        headers=HOME,
        transport=httpx.HTTPTransport(local_address=address),
        timeout=60,
    )


@contextmanager
def silent_server():
    """The origin of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_person_lets_runs_in_and_who_waits_holds_no_thread(
    committed_cast, site, authority, subtests
):
    """All is one test, because starting the site takes longer than all the requests here."""
    by_click = {"clientId": KNOWN_ID, "clientSecret": KNOWN_SECRET}
    for known, begin in (({}, _begun_by_call), (by_click, _begun_by_click)):
        with subtests.test(known=bool(known)):
            _a_person_lets_runs_in(committed_cast, site, authority, known, begin)
    with subtests.test("a code for another redirect URI gives nothing"):
        _a_code_for_another_redirect_uri_gives_nothing(committed_cast, site, authority)
    with subtests.test("twelve that wait for a silent server leave the only thread to others"):
        _twelve_that_wait_leave_the_thread_to_others(committed_cast, site)


def _begun_by_call(browser, connection_id):
    begun = browser.post(f"/api/v1/connections/{connection_id}/authorize")
    assert begun.status_code == 200, begun.text
    return begun.json()["url"]


def _begun_by_click(browser, connection_id):
    """Begins by the console's button, whose request waits in the lane as the API's call does."""
    begun = browser.post(f"/console/connections/{connection_id}/connect")
    assert begun.status_code == 200, begun.text
    (url,) = re.findall(r'href="([^"]+/authorize[^"]+)"', begun.text)
    return html.unescape(url)


def _a_person_lets_runs_in(cast, site, authority, known, begin):
    with browser_of(cast.admin, site) as browser:
        body = {
            "name": f"Tracker {len(known)}",
            "mcpUrl": authority.url,
            "grant": "authorization_code",
            **known,
        }
        made = browser.post(f"/api/v1/environments/{cast.environment.id}/connections", json=body)
        url = f"/api/v1/connections/{made.json()['id']}"
        back = httpx.URL(authority.agree(begin(browser, made.json()["id"])))
        asks = browser.get(back.raw_path.decode())
        assert asks.headers["Referrer-Policy"] == "no-referrer"
        assert "script-src" not in asks.headers["Content-Security-Policy"]
        form = {
            name: html.unescape(value)
            for name, value in re.findall(r'name="(\w+)" value="([^"]*)"', asks.text)
        }
        assert form["code"] == back.params["code"]
        done = browser.post(back.path, data=form)
        assert "Connected." in done.text, done.text
        assert browser.get(url).json()["status"] == "connected"
    connection = Connection.objects.get(name=body["name"])
    token = str(secrets.access_token_of(connection))
    refresh_token = secrets.grant_of(connection).refresh_token
    accepts = {"Accept": "application/json, text/event-stream"}
    hello = httpx.post(
        authority.url, json=_HELLO, headers={**accepts, "Authorization": f"Bearer {token}"}
    )
    assert (hello.status_code, '"serverInfo"' in hello.text) == (200, True)
    # The watch for leaked secrets looks for them in the service's log, and in every table and answer.
    for secret in (token, refresh_token, back.params["code"], back.params["state"]):
        plant(str(secret))
    assert f"{back.path}" in site.log.read_text()


def _a_code_for_another_redirect_uri_gives_nothing(cast, site, authority):
    """Two connections to one server: what is brought back for the one is worth nothing for the other."""
    with browser_of(cast.admin, site) as browser:
        known = {"clientId": KNOWN_ID, "clientSecret": KNOWN_SECRET}
        body = {"name": "One", "mcpUrl": authority.url, "grant": "authorization_code", **known}
        url = f"/api/v1/environments/{cast.environment.id}/connections"
        one, other = (browser.post(url, json=body).json()["id"] for _ in range(2))
        brought = [
            httpx.URL(authority.agree(_begun_by_call(browser, each))) for each in (one, other)
        ]
        # The state is the other's own, and the code that of the first.
        mixed = {**dict(brought[1].params), "code": brought[0].params["code"], "step": "connect"}
        refused = browser.post(brought[1].path, data=mixed)
    assert (refused.status_code, "gave no token" in refused.text) == (409, True)
    assert (
        not Connection.objects.filter(id__in=(one, other)).exclude(status="unauthorized").exists()
    )


def _twelve_that_wait_leave_the_thread_to_others(cast, site):
    """Nobody who waits is answered before the others are: so no thread waits with them."""
    with (
        silent_server() as origin,
        ThreadPoolExecutor(12) as pool,
        browser_of(cast.admin, site) as one,
        browser_of(cast.admin, site, "127.0.0.2") as other,
        browser_of(cast.stranger, site) as stranger,
    ):
        ids = [add(cast, origin) for _ in range(12)]
        waiting = [
            pool.submit((one, other)[n % 2].post, f"/api/v1/connections/{each}/authorize")
            for n, each in enumerate(ids)
        ]
        asked = Authorization.objects.filter(connection_id__in=ids)
        until(lambda: asked.count() == 12)
        until(lambda: asked.filter(lease_id__isnull=False).exists())
        for _ in range(5):
            path = f"/api/v1/environments/{cast.strange_environment.id}/triggers"
            assert stranger.get(path).status_code == 200
            # One of a workspace is under way at a time.
            assert asked.filter(lease_id__isnull=False).count() <= 1
        bearer = {"Authorization": f"Bearer {cast.worker.worker_token}"}
        path = f"{site.api}/workers/{cast.worker.worker_id}/claim-next"
        claimed = httpx.post(path, json={"claimId": "one"}, headers=bearer, timeout=60)
        assert (claimed.status_code, claimed.json()["run"]) == (200, None)
        assert not any(each.done() for each in waiting)
        site.kill()
