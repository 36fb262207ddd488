"""What the tests of the console visit it with: a browser's client that says from where its forms come."""

import html
import re
from html.parser import HTMLParser
from typing import Any

from django.test import Client

from accounts.models import User
from testing.world.cast import session_cookie

HOME = {"origin": "http://localhost:8000", "sec-fetch-site": "same-origin"}


def visitor(user: User | None = None) -> Client:
    """Returns a client that sends forms as a page of ours does, signed in as the user if there is one."""
    client = Client(headers=HOME)
    if user is not None:
        client.cookies["auth_token"] = session_cookie(user)
    return client


def text_of(page: Any) -> str:
    """Returns what a person reads on a page: its text without the tags."""
    return " ".join(html.unescape(re.sub("<[^>]+>", " ", page.content.decode())).split())


class _Form(HTMLParser):
    """Gathers what a browser would send of a page's fields."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.sent: dict[str, list[str]] = {}
        self._name, self._text = "", ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in {"select", "textarea"}:
            self._name, self._text = given["name"] or "", ""
        is_off = given.get("type") == "checkbox" and "checked" not in given
        if tag == "input" and "name" in given and not is_off:
            self._add(given["name"] or "", given.get("value") or "")
        if tag == "option" and self._name:
            chosen = self.sent.get(self._name)
            if not chosen or "selected" in given:
                self.sent[self._name] = [given.get("value") or ""]

    def handle_data(self, data: str) -> None:
        self._text += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "textarea":
            self._add(self._name, self._text.removeprefix("\n"))
        if tag in {"select", "textarea"}:
            self._name = ""

    def _add(self, name: str, value: str) -> None:
        self.sent.setdefault(name, []).append(value)


def typed_in(page: Any) -> dict[str, list[str]]:
    """Returns what the fields of a page hold, as a browser sends them."""
    return _Form(page.content.decode()).sent
