"""The screen of an environment's runs."""

from collections.abc import Iterable
from uuid import UUID

from django.http import HttpRequest, HttpResponse

from console.asking import Json, Refused, ask
from console.pages import chosen, environment_of, screen, show

_FILTERS = ("status", "triggerId", "workerId", "source", "from", "to")
_STATUSES = (
    ("failed,timed_out", "Failed or timed out"),
    ("queued", "Queued"),
    ("waiting", "Waiting for approval"),
    ("claimed,running", "Running"),
    ("succeeded", "Succeeded"),
    ("canceled", "Canceled"),
)
_SOURCES = (
    ("schedule", "Schedule"),
    ("manual", "A person"),
    ("api", "A program"),
    ("event", "An event"),
    ("chain", "Another trigger"),
    ("retry", "Retry"),
)
# So many of the newest triggers and machines can be chosen; their own pages lead to the runs of others.
_MOST = 200


@screen
def runs(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    """Which runs were there, how did they end, and what did they say?"""
    environment = environment_of(request, environment_id)
    query = chosen(request, *_FILTERS)
    triggers = _named(request, environment_id, "triggers", "name")
    machines = _named(request, environment_id, "workers", "label")
    wrong: dict[str, list[str]] = {}
    try:
        page = ask(request, "GET", f"environments/{environment_id}/runs", query=query).data
    except Refused as refused:
        if refused.status != 400 or not refused.fields.keys() & set(_FILTERS):
            raise
        page, wrong = {"items": [], "nextCursor": None}, refused.fields
    for each in page["items"]:
        each["machine"] = machines.get(each["workerId"])
        each["why"] = dict(_SOURCES).get(each["source"], each["source"])
    filters = [
        _filter(query, wrong, "status", "State", _STATUSES),
        _filter(query, wrong, "triggerId", "Trigger", triggers.items()),
        _filter(query, wrong, "workerId", "Machine", machines.items()),
        _filter(query, wrong, "source", "Begun by", _SOURCES),
        _filter(query, wrong, "from", "From (UTC)"),
        _filter(query, wrong, "to", "Until (UTC)"),
    ]
    context = {
        "runs": page["items"],
        "first": filters[:2],
        "others": filters[2:],
        "unfolded": any(each["value"] for each in filters[2:]),
        "isFiltered": bool(query),
        "wrong": wrong,
    }
    return show(
        request, environment, "runs", "all_runs", context, page, status=400 if wrong else 200
    )


def _named(request: HttpRequest, environment_id: UUID, of: str, name: str) -> dict[str | None, str]:
    path = f"environments/{environment_id}/{of}"
    items = ask(request, "GET", path, query={"limit": _MOST}).data["items"]
    items.sort(key=lambda each: each[name].lower())
    return {each["id"]: each[name] for each in items}


def _filter(
    query: dict[str, str],
    wrong: dict[str, list[str]],
    name: str,
    label: str,
    choices: Iterable[tuple[str | None, str]] = (),
) -> Json:
    """Returns one filter for the template. What the URL names beside the choices stays chosen."""
    value, offered = query.get(name, ""), list(choices)
    if offered and value and value not in dict(offered):
        offered.append((value, "The one of the link"))
    errors = wrong.get(name, [])
    return {"name": name, "label": label, "value": value, "choices": offered, "errors": errors}
