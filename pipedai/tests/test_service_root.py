"""`/` and `/api/v1` tell a newcomer, or their program, what this is and where to go on."""

import re

import pytest
from django.test import Client

from pipedai.version import VERSION

BROWSER = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
DESCRIPTION = {
    "name": "PipedAI",
    "version": VERSION,
    "documentation": "https://api.example.com/api/docs",
    "openapi": "https://api.example.com/api/v1/openapi.json",
    "health": "https://api.example.com/api/v1/health",
}


@pytest.fixture(autouse=True)
def _public_url(settings):
    settings.PUBLIC_URL = "https://api.example.com"


@pytest.mark.parametrize("path", ["/", "/api/v1"])
@pytest.mark.parametrize("accept", ["*/*", "application/json", "application/json, text/html;q=0.5"])
def test_a_program_gets_json_with_urls_of_the_public_url(client, path, accept):
    answer = client.get(path, headers={"accept": accept})
    assert answer.status_code == 200
    assert answer["Content-Type"] == "application/json"
    assert answer.json() == DESCRIPTION


def test_without_an_accept_header_it_is_json_too(client):
    for path in ("/", "/api/v1"):
        assert client.get(path).json() == DESCRIPTION


def test_the_api_answers_json_to_a_browser_too_and_nothing_with_a_slash(client):
    assert client.get("/api/v1", headers=BROWSER).json() == DESCRIPTION
    assert client.get("/api/v1/").status_code == 404


def test_other_methods_of_the_api_are_refused_as_everywhere(client):
    answer = client.post("/api/v1")
    assert answer.status_code == 405
    assert "not allowed" in answer.json()["error"]
    assert client.get("/api/v1", headers={"accept": "image/png"}).status_code == 406


def test_a_browser_is_led_to_the_console(client, db):
    answer = client.get("/", headers=BROWSER)
    assert (answer.status_code, answer["Location"]) == (302, "/console/")
    assert "Accept" in answer["Vary"]
    page = client.get("/", headers=BROWSER, follow=True).content.decode()
    for link in re.findall(r'<a [^>]*href="(/[^"]+)"', page):
        assert client.get(link, follow=True).status_code == 200, link
    files = re.findall(r'<(?:link|img)[^>]*?(?:href|src)="([^"]+)"', page)
    assert len(files) == 3
    for file in files:
        assert b"".join(client.get(file)), file


def test_it_can_only_be_read():
    client = Client(enforce_csrf_checks=True)
    assert client.head("/").status_code == 200
    assert client.post("/").status_code == 405
