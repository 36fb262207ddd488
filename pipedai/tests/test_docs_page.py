"""The documentation's pages work under a policy that allows no inline code and nothing from elsewhere."""

import re
from urllib.parse import urljoin

import pytest
from django.test import Client

from pipedai.api.service import SERVED
from pipedai.env import BASE_DIR
from pipedai.server.request_scope import content_policy
from testing.probes.api_schema import OPERATIONS, SCHEMA
from testing.processes.browser import COLOURS, axe_finds, chromium, screenshot

# Those of axe's rules that are about a document's words and elements, and not about how they look.
STRUCTURE = (
    *("cat.name-role-value", "cat.parsing", "cat.semantics", "cat.structure", "cat.tables"),
    "cat.text-alternatives",
)
API = (BASE_DIR / "API.md").read_text()


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


def test_operations_stand_in_the_order_and_with_the_names_of_the_reference():
    headings = re.findall(r"^### `([A-Z]+) (/\S*)`$", API, re.MULTILINE)
    told = [(method, re.sub(r":(\w+)", r"{\1}", path)) for method, path in headings]
    shown = [tuple(name.split(" ")) for name in OPERATIONS]
    for group in SCHEMA["tags"]:
        in_group = [each for each in shown if group["name"] in OPERATIONS[" ".join(each)]["tags"]]
        assert set(in_group) <= set(told)
        # The methods of a path stand together, wherever API.md has them.
        paths = list(dict.fromkeys(path for _, path in in_group))
        assert paths == sorted(paths, key=[path for _, path in told].index), group
    for (_, path), operation in zip(shown, OPERATIONS.values(), strict=True):
        named = [each["name"] for each in operation.get("parameters", ()) if each["in"] == "path"]
        assert named == re.findall(r"{(\w+)}", path)


@pytest.mark.parametrize("name", SERVED)
def test_a_document_is_a_page_whose_links_lead_somewhere(client, name):
    page = client.get(f"/api/docs/{name}")
    assert page.status_code == 200
    text = page.content.decode()
    anchors = set(re.findall(r'id="([^"]+)"', text))
    for link in re.findall(r'href="([^"]+)"', text):
        if link.startswith("#"):
            assert link[1:] in anchors, link
        elif not link.startswith(("http", "/console/")):
            found = client.get(urljoin(f"/api/docs/{name}", link))
            assert found.status_code == 200, link
            assert b"".join(found)
    assert "](" not in re.sub(r"<pre>.*?</pre>|<code>.*?</code>", "", text, flags=re.DOTALL)


def test_no_other_file_is_a_page(client):
    for name in ("CONTRIBUTING.md", ".env", "docs/../.env", "docs/security.md", "API.md/"):
        assert client.get(f"/api/docs/{name}").status_code == 404, name


@pytest.mark.long
def test_a_browser_filters_by_keyboard_shows_an_operation_and_complains_of_nothing(server):
    """Axe looks at the page with what the filter leaves, since what Swagger UI draws is the same at each operation."""
    complaints: list[str] = []
    with chromium() as browser:
        page = browser.new_page(color_scheme="light")
        page.set_default_timeout(60_000)  # A busy machine draws slowly.
        page.on("console", lambda said: complaints.append(said.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{server.url}/api/docs")
        page.wait_for_selector(".opblock")
        page.focus("#filter")
        page.keyboard.type("a RUN cancelr")
        page.wait_for_selector("[role=status]:text-is('1 operation')")
        assert page.locator(".opblock-tag-section .opblock-summary-path").all_inner_texts() == [
            "/runs/{id}/cancel"
        ]
        assert background(page) == "rgb(250, 250, 250)"
        screenshot(page, "docs-light", full_page=True)
        assert axe_finds(page) == ""
        take_colours(page, "dark")
        assert background(page) != "rgb(250, 250, 250)"
        screenshot(page, "docs-dark", full_page=True)
        assert axe_finds(page, *COLOURS) == ""
        page.fill("#filter", "no such words")
        page.wait_for_selector("[role=status]:text-is('0 operations')")
        assert not page.is_visible("text=No operations defined")
        page.goto(f"{server.url}/api/docs#/Triggers/createTrigger")
        page.reload()
        page.wait_for_selector("text=Summarise what happened overnight.")
        assert axe_finds(page) == ""
        (link,) = page.locator(".opblock.is-open .opblock-external-docs a").all()
        page.goto(link.get_attribute("href") or "")
        assert page.is_visible("#post-environmentsenvidtriggers")
        assert axe_finds(page, *STRUCTURE) == ""
        # The documents have one style sheet, and axe takes seconds for the colours of the longest one.
        page.goto(f"{server.url}/api/docs/docs/conformance.md")
        assert axe_finds(page, *COLOURS) == ""
        take_colours(page, "light")
        assert axe_finds(page) == ""
    assert complaints == []


def take_colours(page, scheme):
    """Waits until the colours have changed, which Swagger UI lets some of them do slowly."""
    page.emulate_media(color_scheme=scheme)
    page.evaluate(
        """new Promise(requestAnimationFrame)
            .then(() => Promise.allSettled(document.getAnimations().map(each => each.finished)))"""
    )


def background(page):
    return page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
