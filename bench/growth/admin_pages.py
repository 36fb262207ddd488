"""Yields the lists of admin, alone and within an environment, and the same lists by each of their filters."""

import re
from collections import Counter
from collections.abc import Iterator
from html import unescape
from urllib.parse import parse_qsl

from django.conf import settings
from django.db import transaction
from django.test import Client

from accounts.models import User
from accounts.sessions import Device, open_staff_session
from bench.growth.pages import Page, get, shown
from bench.growth.subjects import Subjects
from pipedai.admin.site import list_of, site

_LINK = re.compile(r'href="\?([^"]+)"')


def admin_pages(on: Subjects, values: int | None) -> Iterator[Page]:
    """Yield the start page and every list, as staff see them, and each list by each of its filters, with so many of the
    filter's values, or all. Only links that narrow a list down are followed, and not those that lead out of it.
    """
    client = _client_of(on.staff)
    yield Page("admin: start page", get(client, "/admin/", {}))
    for model in site._registry:
        path, name = list_of(model), f"admin: {model._meta.verbose_name_plural}"
        starts = [{}, {"q": str(on.run_id)}]
        if any(field.name == "environment" for field in model._meta.fields):
            starts.append({"environment": str(on.environment.id)})
        queries: dict[str, dict[str, str]] = {}
        for start in starts:
            page = get(client, path, start)
            queries.setdefault(shown(start), start)
            links = sorted(set(_LINK.findall(str(page(), "utf-8"))))  # type: ignore[call-overload]
            tried: Counter[frozenset[str]] = Counter()
            for query in (dict(parse_qsl(unescape(link))) for link in links):
                added = frozenset(query.keys() - start.keys())
                if added and query.items() > start.items() and tried[added] != values:
                    tried[added] += 1
                    queries.setdefault(shown(query), query)
        for words, query in queries.items():
            yield Page(f"{name}{words}", get(client, path, query))


def _client_of(staff: User) -> Client:
    """Return a client that is logged in to admin."""
    client = Client(SERVER_NAME="localhost")
    with transaction.atomic():
        session = open_staff_session(staff, Device(b"", None, ""))
    client.cookies[settings.SESSION_COOKIE_NAME] = str(session.session_key)
    return client
