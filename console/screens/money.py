"""The screens of money: what is spent, on what, what stops it, and the forms of budgets."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

from django.http import HttpRequest, HttpResponse

from console.asking import Json, ask_if_free
from console.forms import Look
from console.pages import ResourceScreens, all_of, midnight, names_of, screen, show

# What is wrong comes first.
_STATES = ("used_up", "near", "ok")
_PERIODS = ("7", "30", "90")
# The chart has colours for so many triggers, the costliest; the others share one. So many are listed with their cost.
_COLOURED, _LISTED = 5, 20
# The most groups of which the API's statistics tell.
_MOST_GROUPS = 1_000
# The chart's height and the width of a day, in the units of its drawing, and the gap between two bars.
_HEIGHT, _WIDTH, _GAP = 100, 10, 2
_REACHED = (
    ("hold", "Runs stay queued until the next day or month"),
    ("reject", "The same, and running a trigger by hand is refused"),
    ("notify", "Only tell; nothing is held back"),
)


@screen
def money(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    """What is spent, on what, and what stops it?"""
    budgets = [{**each, **_used(each)} for each in all_of(request, environment_id, "budgets")]
    budgets.sort(key=lambda each: (_STATES.index(each["state"]), -each["percent"]))
    days = request.GET.get("days", "")
    days = days if days in _PERIODS else "30"
    context: Json = {"budgets": budgets, "days": days, "periods": _PERIODS}
    if "HX-Request" not in request.headers:  # When htmx renews the budgets, it needs no chart.
        context |= _spending(request, environment_id, int(days))
    return show(request, environment_id, "money", "money", context)


def _used(budget: Json) -> Json:
    """Returns how full a budget is: its `state`, the `percent` of its limits that is spent, the percent `reserved`, and
    whether `too_little` is left for what a run reserves.
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
    near = too_little or percent >= min(budget["noticeAtPct"], default=100)
    return {
        "state": "used_up" if used_up else "near" if near else "ok",
        "percent": percent,
        "reserved": min(reserved, 100 - percent) if spent == percent else 0,
        "too_little": too_little,
    }


def _percent(part: str | int, whole: str | int | None) -> int:
    """Returns how many percent of the whole the part is: 0 of no limit, and 100 at most."""
    if whole is None:
        return 0
    return 100 if Decimal(part) >= Decimal(whole) else int(Decimal(part) * 100 / Decimal(whole))


def _spending(request: HttpRequest, environment_id: UUID, days: int) -> Json:
    """Returns what each trigger cost, and the chart of what each day did; nothing while the API is too busy for it."""
    now = datetime.now(UTC)
    first = midnight(now.date() - timedelta(days=days - 1))
    path = f"environments/{environment_id}/stats"
    query = {"groupBy": "trigger", "from": first, "to": now}
    if not (by_trigger := ask_if_free(request, "GET", path, query=query)):
        return {}
    # If the API might tell of a part of the triggers of a day alone, the chart shows whole days.
    is_split = by_trigger["groups"] * days <= _MOST_GROUPS
    query["groupBy"] = "day,trigger" if is_split else "day"
    if not (parts := ask_if_free(request, "GET", path, query=query)):
        return {}
    costliest = sorted(by_trigger["items"], key=lambda each: Decimal(each["costUsd"]), reverse=True)
    for place, each in enumerate(costliest):
        each["series"] = place if is_split and place < _COLOURED else _COLOURED
    dates = [f"{first + timedelta(days=number):%Y-%m-%d}" for number in range(days)]
    return {
        "total": by_trigger["total"],
        "triggers": costliest[:_LISTED],
        "unlisted": max(0, by_trigger["groups"] - _LISTED),
        "is_split": is_split,
        "chart": _chart(dates, parts["items"], {each["key"]: each for each in costliest}),
    }


def _chart(dates: list[str], parts: list[Json], triggers: dict[str, Json]) -> Json:
    """Returns what each day cost, and the bars that show it. A bar is a pile with a part for each coloured trigger, and
    one for all others, which has no `name`.
    """
    days: list[Json] = [{"date": date, "cost": 0, "notional": 0, "pile": {}} for date in dates]
    by_date = {each["date"]: each for each in days}
    for each in parts:
        day, trigger = by_date[each["day"]], triggers.get(each["key"], {"series": _COLOURED})
        part = day["pile"].setdefault(trigger["series"], {"cost": 0, "notional": 0})
        part["name"] = trigger["name"] if trigger["series"] < _COLOURED else ""
        for sums in (day, part):
            sums["cost"] += Decimal(each["costUsd"])
            sums["notional"] += Decimal(each["notionalUsd"])
    top, bars = max(each["cost"] for each in days), []
    for number, day in enumerate(days):
        y = Decimal(_HEIGHT)
        for series, part in sorted(day["pile"].items()):
            if part["cost"]:
                height, striped = (part[name] * _HEIGHT / top for name in ("cost", "notional"))
                y -= height
                place = {"x": number * _WIDTH, "y": round(y, 2), "height": round(height, 2)}
                drawn = {"series": series, "striped": round(striped, 2), "date": day["date"]}
                bars.append({**part, **place, **drawn})
    width = {"width": len(days) * _WIDTH - _GAP, "bar": _WIDTH - _GAP, "height": _HEIGHT}
    return {"days": days, "top": top, "bars": bars, **width}


def _looks(request: HttpRequest, row: Json) -> dict[str, Look]:
    triggers = names_of(request, row["environmentId"], "triggers")
    if row.get("triggerId"):
        triggers[row["triggerId"]] = row["triggerName"]
    no_limit, zone = "Empty: no limit of this kind.", "Its midnight begins the day or month."
    reserve = "A run that is under way counts with this until its real cost is known."
    return {
        "name": Look(),
        "triggerId": Look("It covers", choices=[("", "All runs"), *triggers.items()]),
        "limitUsd": Look("Limit in US dollars", help=no_limit),
        "limitRuns": Look("Limit of runs", help=no_limit),
        "period": Look("In each", choices=[("month", "Month"), ("day", "Day")]),
        "timezone": Look("Time zone", help=zone),
        "whenReached": Look("When it is used up", choices=_REACHED),
        "noticeAtPct": Look("Tell when it has reached, in percent", help="One number a line."),
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
