"""Times the pages of Django admin on the database that the settings name, and shows each page's slowest statement.

Fill one first: `PIPEDAI_DATA_DIR=/var/tmp/large python manage.py seed_demo --scale`; then, with the same variable,
`python -m bench.admin_pages`. It calls Django directly, without a web server.
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
    """Print the table. Return 1 if a page took longer than a second, else 0."""
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
    from accounts.models import User
    from bench.growth.admin_pages import client_of

    user = User.objects.filter(is_staff=True, is_active=True).order_by("id").first()
    assert user is not None, "there is no staff user: call manage.py create_staff"
    return client_of(user)


def _urls() -> Iterator[str]:
    """Yield the start page, each list with its second page and each of its filters, and a row's page."""
    from bench.growth.admin_pages import filters_of, query_of
    from pipedai.admin.filters import RelatedFilter
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
        related = [
            each.name
            for each in admin.list_filter
            if isinstance(each, type) and issubclass(each, RelatedFilter)
        ]
        ids = {name: getattr(newest, f"{name}_id", None) for name in related}
        for name, words in filters_of(admin, ids):
            yield from (list_of(model, **query_of(admin, {name: word})) for word in words)
    run = Run.objects.order_by("-id").first()
    if run is not None:
        middle = Run.objects.filter(environment_id=run.environment_id).order_by("queued_at").first()
        assert middle is not None
        for status in ("succeeded", "timed_out"):
            yield list_of(Run, environment=run.environment_id, status=status)
        yield list_of(Run, after=middle.id)


def _measure(client: Any, url: str) -> tuple[float, int, tuple[float, str]]:
    """Return the median time, the number of statements, and the slowest of them."""
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
