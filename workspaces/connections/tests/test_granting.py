"""A connection is authorized over real HTTP at a real authorization server, and its token lets a run in."""

import html
import re

import httpx
import pytest

from testing.probes.planted import plant
from testing.processes.grant_server import KNOWN_ID, KNOWN_SECRET, grant_server
from testing.processes.scheduler_process import scheduling
from testing.processes.web_process import serve
from testing.world.cast import session_cookie
from workspaces.connections import secrets
from workspaces.models import Connection

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
def authority(tmp_path):
    with grant_server(tmp_path) as authority:
        yield authority


@pytest.fixture
def site(own_database, tmp_path):
    log = tmp_path / "web.log"
    networks = {"WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8"}
    with (
        serve(own_database, log=log, **networks) as server,
        scheduling(own_database, log=tmp_path / "scheduler.log", **networks),
    ):
        yield server


def test_a_person_lets_runs_in_and_no_log_tells_how(committed_cast, site, authority, subtests):
    """All is one test, because starting the site takes longer than all the requests here."""
    for known in ({}, {"clientId": KNOWN_ID, "clientSecret": KNOWN_SECRET}):
        with subtests.test(known=bool(known)):
            _a_person_lets_runs_in(committed_cast, site, authority, known)
    with subtests.test("a code for another redirect URI gives nothing"):
        _a_code_for_another_redirect_uri_gives_nothing(committed_cast, site, authority)


def _a_person_lets_runs_in(cast, site, authority, known):
    cookie = {"auth_token": session_cookie(cast.admin)}
    home = {"sec-fetch-site": "same-origin"}
    with httpx.Client(base_url=site.url, cookies=cookie, headers=home, timeout=60) as browser:
        body = {
            "name": f"Tracker {len(known)}",
            "mcpUrl": authority.url,
            "grant": "authorization_code",
            **known,
        }
        made = browser.post(f"/api/v1/environments/{cast.environment.id}/connections", json=body)
        url = f"/api/v1/connections/{made.json()['id']}"
        begun = browser.post(f"{url}/authorize")
        assert begun.status_code == 200, begun.text
        back = httpx.URL(authority.agree(begun.json()["url"]))
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
    with httpx.Client(
        base_url=site.url,
        cookies={"auth_token": session_cookie(cast.admin)},
        headers={"sec-fetch-site": "same-origin"},
        timeout=60,
    ) as browser:
        known = {"clientId": KNOWN_ID, "clientSecret": KNOWN_SECRET}
        body = {"name": "One", "mcpUrl": authority.url, "grant": "authorization_code", **known}
        url = f"/api/v1/environments/{cast.environment.id}/connections"
        one, other = (browser.post(url, json=body).json()["id"] for _ in range(2))
        brought = [
            httpx.URL(
                authority.agree(browser.post(f"/api/v1/connections/{each}/authorize").json()["url"])
            )
            for each in (one, other)
        ]
        # The state is the other's own, and the code that of the first.
        mixed = {**dict(brought[1].params), "code": brought[0].params["code"], "step": "connect"}
        refused = browser.post(brought[1].path, data=mixed)
    assert (refused.status_code, "gave no token" in refused.text) == (409, True)
    assert (
        not Connection.objects.filter(id__in=(one, other)).exclude(status="unauthorized").exists()
    )
