"""The documentation page works under a policy that allows no inline code and nothing from elsewhere."""

import re

from pipedai.server.headers import content_policy


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


def test_the_page_can_only_be_read(client):
    assert client.head("/api/docs").status_code == 200
    assert client.post("/api/docs").status_code == 405
    assert client.get("/api/docs/").status_code == 404
