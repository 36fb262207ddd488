"""The documentation page works under a policy that allows no inline code and nothing from elsewhere."""

import re
import subprocess

import pytest
from django.test import Client

from pipedai.server.headers import content_policy
from testing.processes.programs import program


def test_all_that_the_page_loads_is_ours_and_there(client):
    page = client.get("/api/docs")
    assert page.status_code == 200
    assert page["Content-Type"].startswith("text/html")
    loaded = re.findall(r'<(?:script|link)\b[^>]*?(?:src|href)="([^"]+)"', page.content.decode())
    assert len(loaded) == 5
    for url in loaded:
        assert url.startswith("/static/")
        assert b"".join(client.get(url)), url


def test_the_page_holds_no_code_or_style_of_its_own(client):
    page = client.get("/api/docs").content.decode()
    assert re.findall(r"<script[^>]*>(.+?)</script>|<style|\son\w+=|\sstyle=", page) == []
    assert "unsafe" not in content_policy("/api/docs")


def test_the_page_can_only_be_read():
    client = Client(enforce_csrf_checks=True)
    assert client.head("/api/docs").status_code == 200
    assert client.post("/api/docs").status_code == 405


def test_with_a_slash_at_the_end_it_is_found_too(client):
    answer = client.get("/api/docs/")
    assert (answer.status_code, answer["Location"]) == (302, "/api/docs")


@pytest.mark.long
def test_a_browser_shows_an_operation_and_complains_of_nothing(server, tmp_path):
    shown = subprocess.run(
        [
            program("chromium"), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", f"--user-data-dir={tmp_path}", "--enable-logging=stderr",
            "--virtual-time-budget=20000", "--dump-dom",
            f"{server.url}/api/docs#/Triggers/createTrigger",
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )  # fmt: skip
    assert "Summarise what happened overnight." in shown.stdout
    assert [line for line in shown.stderr.splitlines() if "CONSOLE" in line] == []
