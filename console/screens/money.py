"""The screens of money: what is spent, on what, what stops it, and the forms of budgets."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from console.asking import Json, ask, ask_if_free
from console.forms import Form, Look
from console.pages import confirm, environment_of, screen, see_other
from console.screens.machines import MOST

# What is wrong comes first.
_STATES = ("used_up", "near", "ok")
_PERIODS = ("7", "30", "90")
# The chart has colours for so many triggers, the costliest; the others share one.
_COLOURED = 5
# So many triggers are listed with what they cost.
_LISTED = 20
# The most groups of which the API's statistics tell.
_MOST_GROUPS = 1_000
# The chart's height and the width of a day, in the units of its drawing, and the gap between two bars.
_HEIGHT, _WIDTH, _GAP = 100, 10, 2


@screen
def money(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    """What is spent, on what, and what stops it?"""
    environment = environment_of(request, environment_id)
    path = f"environments/{environment_id}/budgets"
    budgets = [
        {**each, **_used(each)}
        for each in ask(request, "GET", path, query={"limit": MOST}).data["items"]
    ]
    days = request.GET.get("days", "")
    days = days if days in _PERIODS else "30"
    context = {
        "environment": environment,
        "menu": "money",
        "budgets": sorted(
            budgets, key=lambda each: (_STATES.index(each["state"]), -each["percent"])
        ),
        "days": days,
        "periods": _PERIODS,
        # When htmx renews the budgets, it needs no chart.
        **(
            {} if "HX-Request" in request.headers else _spending(request, environment_id, int(days))
        ),
    }
    return render(request, "console/money.html", context)


def _used(budget: Json) -> Json:
    """Returns how full a budget is: its `state`, the `percent` of its limits that is spent, and the `reserved` ones."""
    limit, runs = budget["limitUsd"], budget["limitRuns"]
    spent, reserved = (
        0 if limit is None else _percent(Decimal(budget[name]), Decimal(limit))
        for name in ("spentUsd", "reservedUsd")
    )
    of_runs = 0 if runs is None else _percent(Decimal(budget["runs"]), Decimal(runs))
    percent = max(spent, of_runs)
    used_up = of_runs >= 100 or (limit is not None and Decimal(budget["remainingUsd"]) == 0)
    # A run that reserves more than what is left has no room either.
    too_little = limit is not None and Decimal(budget["remainingUsd"]) < Decimal(
        budget["reserveUsd"]
    )
    near = percent >= min(budget["noticeAtPct"], default=100)
    return {
        "percent": percent,
        "reserved": min(reserved, 100 - percent) if spent == percent else 0,
        "too_little": too_little and not used_up,
        "state": "used_up" if used_up else "near" if near or too_little else "ok",
    }


def _percent(part: Decimal, whole: Decimal) -> int:
    return 100 if part >= whole else int(part * 100 / whole)


def _spending(request: HttpRequest, environment_id: UUID, days: int) -> Json:
    """Returns what each trigger cost, and the chart of what each day did; nothing while the API is too busy for it."""
    now = datetime.now(UTC)
    first = now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=days - 1)
    path = f"environments/{environment_id}/stats"
    query = {"groupBy": "trigger", "from": first, "to": now}
    by_trigger = ask_if_free(request, "GET", path, query=query)
    if not by_trigger:
        return {}
    # If the API might tell of a part of the triggers of a day alone, the chart shows whole days.
    is_split = by_trigger["groups"] * days <= _MOST_GROUPS
    query["groupBy"] = "day,trigger" if is_split else "day"
    parts = ask_if_free(request, "GET", path, query=query)
    if not parts:
        return {}
    costliest = sorted(by_trigger["items"], key=lambda each: Decimal(each["costUsd"]), reverse=True)
    for place, each in enumerate(costliest):
        each["series"] = min(place, _COLOURED) if is_split else _COLOURED
    dates = [f"{first + timedelta(days=number):%Y-%m-%d}" for number in range(days)]
    return {
        "total": by_trigger["total"],
        "triggers": costliest[:_LISTED],
        "unlisted": max(0, by_trigger["groups"] - _LISTED),
        "is_split": is_split,
        "chart": _chart(dates, parts["items"], costliest),
    }


def _chart(dates: list[str], parts: list[Json], triggers: list[Json]) -> Json:
    """Returns what each day cost, and the bars that show it. A bar is a pile with a part for each coloured trigger, and
    one for all others.
    """
    series = {each["key"]: each["series"] for each in triggers}
    names = [each["name"] for each in triggers if each["series"] < _COLOURED]
    piles: dict[str, dict[int, tuple[Decimal, Decimal]]] = {date: {} for date in dates}
    for each in parts:
        pile, place = piles[each["day"]], series.get(each["key"], _COLOURED)
        cost, notional = pile.get(place, (Decimal(0), Decimal(0)))
        pile[place] = cost + Decimal(each["costUsd"]), notional + Decimal(each["notionalUsd"])
    days = [
        {
            "date": date,
            "cost": sum(cost for cost, _ in pile.values()),
            "notional": sum(notional for _, notional in pile.values()),
        }
        for date, pile in piles.items()
    ]
    top = max(Decimal(each["cost"]) for each in days) or Decimal(1)
    bars = []
    for number, (date, pile) in enumerate(piles.items()):
        bottom = Decimal(_HEIGHT)
        for place, (cost, notional) in sorted(pile.items()):
            if not cost:
                continue
            bottom -= cost * _HEIGHT / top
            bars.append(
                {
                    "x": number * _WIDTH,
                    "y": round(bottom, 2),
                    "height": round(cost * _HEIGHT / top, 2),
                    "notional": round(notional * _HEIGHT / top, 2),
                    "series": place,
                    "name": names[place]
                    if place < len(names)
                    else "all others"
                    if names
                    else "all",
                    "cost": cost,
                    "date": date,
                }
            )
    return {
        "days": days,
        "bars": bars,
        "width": len(dates) * _WIDTH - _GAP,
        "bar": _WIDTH - _GAP,
        "height": _HEIGHT,
        "top": top,
    }


@screen
def new_budget(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    environment = environment_of(request, environment_id)
    looks = _looks(request, environment_id)
    form = Form("POST", f"environments/{environment_id}/budgets", looks, values={"period": "month"})
    return _answer(request, environment, form, title="New budget", button="Make the budget")


@screen
def edit_budget(request: HttpRequest, budget_id: UUID) -> HttpResponse:
    found = ask(request, "GET", f"budgets/{budget_id}").data
    environment = environment_of(request, found["environmentId"])
    looks = _looks(request, found["environmentId"], found)
    form = Form("PATCH", f"budgets/{budget_id}", looks, values=found)
    return _answer(request, environment, form, title=f"Edit {found['name']}", button="Save")


def _answer(request: HttpRequest, environment: Json, form: Form, **said: str) -> HttpResponse:
    back = reverse("console:money", args=[environment["id"]])
    if request.method == "POST" and form.send(request):
        return see_other(request, back)
    context = {"environment": environment, "menu": "money", "form": form, "back": back, **said}
    return render(request, "console/form.html", context, status=form.status)


def _looks(
    request: HttpRequest, environment_id: UUID | str, budget: Json | None = None
) -> dict[str, Look]:
    path = f"environments/{environment_id}/triggers"
    listed = ask(request, "GET", path, query={"limit": MOST}).data["items"]
    triggers = {each["id"]: each["name"] for each in listed}
    if budget and budget["triggerId"]:
        triggers[budget["triggerId"]] = budget["triggerName"]
    return {
        "name": Look(),
        "triggerId": Look("It covers", choices=[("", "All runs"), *triggers.items()]),
        "limitUsd": Look("Limit in US dollars", help="Empty: no limit of this kind."),
        "limitRuns": Look("Limit of runs", help="Empty: no limit of this kind."),
        "period": Look("In each", choices=[("month", "Month"), ("day", "Day")]),
        "timezone": Look(
            "Time zone", help="The day or month begins at midnight there. Such as Europe/Berlin."
        ),
        "whenReached": Look(
            "When it is used up",
            choices=[
                ("hold", "Runs wait for the next day or month"),
                ("reject", "The same, and running a trigger by hand is refused"),
                ("notify", "Only tell; nothing waits"),
            ],
        ),
        "noticeAtPct": Look(
            "Tell when it has reached, in percent", help="One number a line.", kind="list"
        ),
        "reserveUsd": Look(
            "Reserved for a run whose trigger has no limit, in US dollars",
            help="A run that is under way counts with this until its real cost is known.",
        ),
        "countNotional": Look("Count what a subscription has paid for already"),
    }


@screen
def delete_budget(request: HttpRequest, budget_id: UUID) -> HttpResponse:
    found = ask(request, "GET", f"budgets/{budget_id}").data
    back = reverse("console:money", args=[found["environmentId"]])
    if request.method == "POST":
        ask(request, "DELETE", f"budgets/{budget_id}")
        return see_other(request, back)
    return confirm(
        request,
        environment_of(request, found["environmentId"]),
        menu="money",
        title=f"Delete {found['name']}?",
        text="Runs that wait for it go out. What it has counted is gone; what runs have cost stays.",
        button="Delete the budget",
        back=back,
    )
