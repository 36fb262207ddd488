"""The screens of money: what is spent on what, which budgets stop runs, and the forms of budgets."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

from django.http import HttpRequest, HttpResponse

from console.asking import Json, ask_if_free
from console.charts import Day, Part, by_day, filled
from console.forms import Look
from console.pages import ResourceScreens, all_of, midnight, screen, show
from console.screens.finding import Named

# The order of the list. Budgets with a problem come first.
_STATES = ("used_up", "near", "ok")
_PERIODS = ("7", "30", "90")
# The chart has colours for the first this many triggers, by cost; the others share one. The list has the second number.
_COLOURED, _LISTED = 5, 20
# The largest number of groups in an answer of the API's statistics.
_MOST_GROUPS = 1_000
_REACHED = (
    ("hold", "Runs stay queued until the next day or month"),
    ("reject", "The same, and running a trigger by hand is refused"),
    ("notify", "Only tell; nothing is held back"),
)


@screen
def money(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    """Shows what is spent on what, and which budgets stop runs."""
    budgets = [{**each, **_used(each)} for each in all_of(request, environment_id, "budgets")]
    budgets.sort(key=lambda each: (_STATES.index(each["state"]), -each["percent"]))
    days = request.GET.get("days", "")
    days = days if days in _PERIODS else "30"
    context: Json = {"budgets": budgets, "days": days, "periods": _PERIODS}
    if "HX-Request" not in request.headers:  # When htmx renews the budgets, it needs no chart.
        context |= _spending(request, environment_id, int(days))
    return show(request, environment_id, "money", "money", context)


def _used(budget: Json) -> Json:
    """Returns how full a budget is: its `state`, the `percent` of its limits that is spent, the `bar` that shows this
    and what is reserved, and whether `too_little` is left for another run's reservation.
    """
    spent, reserved, of_runs = (
        _percent(budget[part], budget[whole])
        for part, whole in (
            ("spentUsd", "limitUsd"),
            ("reservedUsd", "limitUsd"),
            ("runs", "limitRuns"),
        )
    )
    percent, left = max(spent, of_runs), budget["remainingUsd"]
    used_up = of_runs == 100 or left == "0"
    too_little = not used_up and left is not None and Decimal(left) < Decimal(budget["reserveUsd"])
    held = min(reserved, 100 - percent) if spent == percent else 0
    near = too_little or percent >= min(budget["noticeAtPct"], default=100)
    return {
        "state": (state := "used_up" if used_up else "near" if near else "ok"),
        "percent": percent,
        "bar": filled(percent, held, state),
        "too_little": too_little,
    }


def _percent(part: str | int, whole: str | int | None) -> int:
    """Returns the percentage that the part is of the whole: 0 if there is no limit, and 100 at most."""
    if whole is None:
        return 0
    return 100 if Decimal(part) >= Decimal(whole) else int(Decimal(part) * 100 / Decimal(whole))


def _spending(request: HttpRequest, environment_id: UUID, days: int) -> Json:
    """Returns each trigger's cost and the chart of each day's; nothing while the API is too busy."""
    now = datetime.now(UTC)
    first = midnight(now.date() - timedelta(days=days - 1))
    path = f"environments/{environment_id}/stats"
    query = {"groupBy": "trigger", "from": first, "to": now}
    if not (by_trigger := ask_if_free(request, "GET", path, query=query)):
        return {}
    # If the API might leave out some triggers of a day, the chart does not split days by trigger.
    is_split = by_trigger["groups"] * days <= _MOST_GROUPS
    query["groupBy"] = "day,trigger" if is_split else "day"
    if not (parts := ask_if_free(request, "GET", path, query=query)):
        return {}
    costliest = sorted(by_trigger["items"], key=lambda each: Decimal(each["costUsd"]), reverse=True)
    for place, each in enumerate(costliest):
        each["series"] = place if is_split and place < _COLOURED else _COLOURED
    dates = [f"{first + timedelta(days=number):%Y-%m-%d}" for number in range(days)]
    spent = _days(dates, parts["items"], {each["key"]: each for each in costliest})
    return {
        "total": by_trigger["total"],
        "triggers": costliest[:_LISTED],
        "unlisted": max(0, by_trigger["groups"] - _LISTED),
        "is_split": is_split,
        "chart": by_day(spent, tall=True),
    }


def _days(dates: list[str], parts: list[Json], triggers: dict[str, Json]) -> list[Day]:
    """Returns the cost of each day: a part for each coloured trigger, and one without a name for all others."""
    days = {date: Day(date) for date in dates}
    for each in parts:
        trigger = triggers.get(each["key"], {"series": _COLOURED})
        part = days[each["day"]].parts.setdefault(trigger["series"], Part())
        part.name = trigger["name"] if trigger["series"] < _COLOURED else ""
        part.cost += Decimal(each["costUsd"])
        part.notional += Decimal(each["notionalUsd"])
    return [*days.values()]


def _looks(request: HttpRequest, row: Json) -> dict[str, Look]:
    triggers = Named(request, row["environmentId"], "triggers")
    no_limit, zone = "Empty: no limit of this kind.", "Its midnight begins the day or month."
    reserve = "A run that is under way counts with this until its real cost is known."
    return {
        "name": Look(),
        "triggerId": Look("The trigger it covers", help="Empty: all runs.", finder=triggers),
        "limitUsd": Look("Limit in US dollars", help=no_limit),
        "limitRuns": Look("Limit of runs", help=no_limit),
        "period": Look("In each", choices=[("month", "Month"), ("day", "Day")]),
        "timezone": Look("Time zone", help=zone),
        "whenReached": Look("When it is used up", choices=_REACHED),
        "noticeAtPct": Look(
            "Tell when it has reached, in percent", help="Such as 50, 80, 100.", kind="commas"
        ),
        "reserveUsd": Look("Reserved for a run without a limit, in US dollars", help=reserve),
        "countNotional": Look("Count what a subscription has paid for already"),
    }


BUDGETS = ResourceScreens(
    noun="budget",
    menu="money",
    looks=_looks,
    deleting="Runs that are queued because of it go out. What it has counted is gone; what runs have cost stays.",
    listed="console:money",
    page="console:money",
    of="environmentId",
    usual={"period": "month"},
)
