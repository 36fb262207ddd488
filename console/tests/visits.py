"""What the tests of the console visit it with: a browser's client that says from where its forms come."""

import html
import re
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
