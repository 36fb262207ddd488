"""Times admin's pages on the database that the settings name, and shows each page's slowest statement.

Fill one first: `PIPEDAI_DATA_DIR=/var/tmp/large python manage.py seed_demo --scale`; then, with the same variable,
`python -m bench.admin_pages`. The pages are asked of Django itself, without a web server in between.
"""

import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import django

RUNS_TIMED = 3
_LONGEST_SHOWN = 400


def main() -> int:
    """Print the table; 1 if a page took longer than a second."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "pipedai.settings")
    django.setup()
    slowest = 0.0
    client = _desk()
    print(f"{'page':<78} {'ms':>6} {'queries':>8}  slowest query")
    for url in _urls():
        seconds, queries, (took, sql) = _measure(client, url)
        slowest = max(slowest, seconds)
        print(f"{url[:78]:<78} {seconds * 1000:6.0f} {queries:8}  {took * 1000:.0f} ms: {sql}")
    print(f"slowest: {slowest * 1000:.0f} ms")
    return 1 if slowest > 1.0 else 0


def _desk() -> Any:
    from django.conf import settings
    from django.test import Client

    from accounts.models import User
    from accounts.staff_sessions import open_staff_session

    client = Client(SERVER_NAME="localhost")
    user = User.objects.filter(is_staff=True, is_active=True).order_by("id").first()
    assert user is not None, "there is no staff user: call manage.py create_staff"
    key = open_staff_session(user, b"").session_key
    client.cookies[settings.SESSION_COOKIE_NAME] = str(key)
    return client


def _urls() -> Iterator[str]:
    """The start page; each list, its second page, its filters one by one; and a row's page."""
    from pipedai.admin.filters import OneOf
    from pipedai.admin.site import site
    from pipedai.admin.values import list_of, page_of
    from triggers.models import Run

    yield "/admin/"
    admin: Any
    for model, admin in site._registry.items():
        newest: Any = model._default_manager.order_by(
            *(f"-{key}" for key in admin.newest_first)
        ).first()
        yield list_of(model)
        if newest is None:
            continue
        yield page_of(model, newest.pk)
        for each in admin.list_filter:
            if isinstance(each, str):
                field: Any = model._meta.get_field(each)
                words = [word for word, _ in field.choices or ()] or ["1"]
                yield from (list_of(model, **{f"{each}__exact": word}) for word in words)
            elif issubclass(each, OneOf):
                yield from (list_of(model, **{each.parameter_name: word}) for word in each.words)
            elif value := getattr(newest, f"{each.name}_id", None):
                yield list_of(model, **{each.name: value})
    run = Run.objects.order_by("-id").first()
    if run is not None:
        middle = Run.objects.filter(environment_id=run.environment_id).order_by("queued_at").first()
        assert middle is not None
        for status in ("succeeded", "timed_out"):
            yield list_of(Run, environment=run.environment_id, status__exact=status)
        yield list_of(Run, after=middle.id)


def _measure(client: Any, url: str) -> tuple[float, int, tuple[float, str]]:
    """The median time, how many statements, and the slowest of them."""
    from django.core.cache import cache
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    times, captured = [], []
    for _ in range(RUNS_TIMED):
        cache.clear()
        with CaptureQueriesContext(connection) as queries:
            began = time.perf_counter()
            answer = client.get(url)
            times.append(time.perf_counter() - began)
        assert answer.status_code == 200, (url, answer.status_code)
        captured = [(float(query["time"]), query["sql"]) for query in queries.captured_queries]
    took, sql = max(captured)
    return (
        sorted(times)[len(times) // 2],
        len(captured),
        (took, " ".join(sql.split())[:_LONGEST_SHOWN]),
    )


if __name__ == "__main__":
    sys.exit(main())
