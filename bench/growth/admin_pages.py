"""Yields the lists of admin: with each filter, alone and within an environment, at the first page and deep in it."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib.admin.filters import SimpleListFilter
from django.db import transaction
from django.test import Client

from accounts.models import User
from accounts.sessions import Device, open_staff_session
from bench.growth.pages import Page, get, shown
from bench.growth.subjects import Subjects, middle
from pipedai.admin.filters import AFTER, DatesFilter, OneOf, RelatedFilter
from pipedai.admin.site import site
from pipedai.admin.values import list_of

Sent = Mapping[str, str]


def admin_pages(on: Subjects, values: int | None) -> Iterator[Page]:
    """Yield every list and the start page, as staff see them. Of each filter it tries so many values, or all;
    with so many, only lists without a filter are read deep.
    """
    client = client_of(on.staff)
    ids: dict[str, UUID | None] = {
        "environment": on.environment.id,
        "trigger": on.trigger_id,
        "worker": on.worker_id,
        "workspace": on.environment.workspace_id,
        "user": on.owner.id,
        "target": on.run_id,
        "actor": on.key_id,
        "channel": None,
        "pool": None,
    }
    yield Page("admin: start page", get(client, "/admin/", {}))
    for model, admin in site._registry.items():
        path, name = list_of(model), f"admin: {model._meta.verbose_name_plural}"
        for sent in _combinations(admin, ids, values):
            query = query_of(admin, sent)
            yield Page(f"{name}{shown(query)}", get(client, path, query))
            if (values is None or not sent) and (place := _middle(admin, sent)):
                yield Page(
                    f"{name}{shown(query)}, deep", get(client, path, {**query, AFTER: place})
                )
        yield Page(f"{name}?q", get(client, path, {"q": str(on.run_id)}))
        if getattr(admin, "searched_text", ()):
            yield Page(f"{name}?q=text", get(client, path, {"q": "report"}))


def client_of(staff: User) -> Client:
    """Return a client that is logged in to admin."""
    client = Client(SERVER_NAME="localhost")
    with transaction.atomic():
        session = open_staff_session(staff, Device(b"", None, ""))
    client.cookies[settings.SESSION_COOKIE_NAME] = str(session.session_key)
    return client


def _combinations(admin: Any, ids: Mapping[str, UUID | None], values: int | None) -> Iterator[Sent]:
    filters = {name: tuple(words)[:values] for name, words in filters_of(admin, ids)}
    yield {}
    environment = filters.pop("environment", ())
    for name, words in filters.items():
        yield from ({name: word} for word in words)
    for one in environment:
        yield {"environment": one}
        for name, words in filters.items():
            yield from ({"environment": one, name: word} for word in words)


def filters_of(admin: Any, ids: Mapping[str, UUID | None]) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield each filter's name and its values. A filter by a row has the id in `ids` as its value, if there is one."""
    for each in admin.list_filter:
        if isinstance(each, str):
            field = admin.model._meta.get_field(each)
            yield each, [str(word) for word, _ in field.flatchoices] or ["1", "0"]
        elif issubclass(each, RelatedFilter):
            row_id = ids.get(each.name)
            yield each.name, [] if row_id is None else [str(row_id)]
        elif issubclass(each, DatesFilter):
            yield "from", [(datetime.now(UTC) - timedelta(days=30)).date().isoformat()]
        elif issubclass(each, OneOf):
            yield str(each.parameter_name), list(each.words)
        elif issubclass(each, SimpleListFilter):
            raise TypeError(
                f"{each.__name__} is a kind of filter that the benchmark does not know."
            )


def query_of(admin: Any, sent: Sent) -> Sent:
    """Return the query parameters by which a page is requested with these filters."""
    plain = {each for each in chain(admin.list_filter) if isinstance(each, str)}
    return {f"{name}__exact" if name in plain else name: word for name, word in sent.items()}


def _middle(admin: Any, sent: Sent) -> str:
    """Return the cursor of the row in the middle of the list, as in admin's links, or "" for an empty list."""
    keys = admin.scope_of(sent).keys
    table = admin.model._meta.db_table
    where = f"environment_id = '{sent['environment']}'" if "environment" in sent else "true"
    value = middle(table, keys[0], where)
    if value is None:
        return ""
    first = str(value) if keys[0] == "id" else value.isoformat()
    return ",".join([first, *(str(UUID(int=0)) for _ in keys[1:])])
