"""Budgets, and what runs have cost by day and trigger."""

import re
from decimal import Decimal

import pytest

from console.screens import money
from console.tests.visits import text_of, visitor
from pipedai.sql import database_now
from testing.world.budgets import add_budget
from testing.world.runs import Runs
from triggers.models import Budget, Run

TYPED = {
    "name": "Nights",
    "triggerId": "",
    "limitUsd": "20",
    "limitRuns": "",
    "period": "day",
    "timezone": "Europe/Berlin",
    "whenReached": "reject",
    "noticeAtPct": "50, 90,",
    "reserveUsd": "0.50",
    "countNotional": "true",
}


@pytest.fixture
def below(cast):
    """Returns a path below the cast's environment."""
    return lambda rest: f"/console/environments/{cast.environment.id}/{rest}"


def test_what_is_used_up_comes_first_with_its_numbers(cast, below):
    add_budget(cast, name="Roomy", limit_usd="100", reserve_usd="0")
    add_budget(cast, name="Full", limit_runs=1, trigger_id=cast.trigger_id)
    add_budget(cast, name="Counts")
    Runs(cast, cast.trigger_id, now=database_now()).running()
    add_budget(cast, name="Tight", limit_usd="0.50")
    page = visitor(cast.viewer).get(below("money"))
    shown = text_of(page)
    assert shown.index("Full") < shown.index("Tight") < shown.index("Roomy")
    assert "Used up Its runs stay queued. 100 % $0.00, $1.00 reserved, 1 run 1 run" in shown
    assert "A run reserves $1.00, more than what is left. 0 %" in shown
    assert page.content.decode().count('<svg class="bar') == 4
    assert "Edit" not in shown
    # When htmx renews the budgets, no statistics are worked out for it.
    part = visitor(cast.viewer).get(below("money"), headers={"HX-Request": "true"})
    assert "Full" in text_of(part)


def test_a_budget_is_made_changed_and_deleted(cast, below):
    admin = visitor(cast.admin)
    assert below("budgets/new") in admin.get(below("money")).content.decode()
    wrong = {**TYPED, "timezone": "Mars/Base", "noticeAtPct": "50, half", "limitUsd": "-1"}
    refused = admin.post(below("budgets/new"), wrong)
    found = set(re.findall('id="field-(\\w+)-error"', refused.content.decode()))
    assert (refused.status_code, found) == (400, {"timezone", "noticeAtPct", "limitUsd"})
    assert "half" in refused.content.decode()
    assert visitor(cast.operator).post(below("budgets/new"), TYPED).status_code == 403
    made = admin.post(below("budgets/new"), {**TYPED, "triggerId": cast.trigger_id})
    assert made["Location"] == below("money")
    budget = Budget.objects.get()
    assert (budget.trigger_id, budget.notice_at_pct) == (cast.trigger_id, [50, 90])
    path = f"/console/budgets/{budget.id}"
    form = admin.get(path + "/edit").content.decode()
    assert 'value="50, 90"' in form
    unlimited = {**TYPED, "limitUsd": "", "limitRuns": "7", "reserveUsd": ""}
    admin.post(path + "/edit", unlimited)
    budget.refresh_from_db()
    assert (budget.limit_usd, budget.limit_runs, budget.trigger_id) == (None, 7, None)
    assert budget.reserve_usd == Decimal("0.5")
    assert "What it has counted is gone" in text_of(admin.get(path + "/delete"))
    assert admin.post(path + "/delete").status_code == 303
    assert admin.get(path + "/edit").status_code == 404


def spend(cast, trigger_id, *costs):
    runs = Runs(cast, trigger_id, now=database_now())
    for cost in costs:
        runs.ended(costUsd=cost)


def test_each_day_is_a_bar_of_what_its_triggers_cost(cast, below):
    spend(cast, cast.trigger_id, "3", "1")
    other = cast.add_trigger(name="Other <script>alert(1)</script> \u202egnp")
    spend(cast, other, "1")
    page = visitor(cast.viewer).get(below("money?days=7"))
    shown, bars = text_of(page), page.content.decode()
    assert "$5.00 in 7 days, of which a subscription covers $5.00" in shown
    assert re.search("Other <script>.* \\$1.00 \\$1.00 1 ", shown)
    heights = re.findall('<path class="busy-mark(?: s(\\d))? pale" d="M.*?v([0-9.]+)h', bars)
    assert heights == [("", "80"), ("1", "20")]  # Of scale lines that are 20 apart for each dollar.
    assert "<script>alert" not in bars
    days = shown[shown.index("Day in UTC") :]
    assert len(re.findall(r"\w{3} \d+ \w{3} \$", days)) == 7
    Run.objects.update(cost_usd=0)
    assert "has cost anything" in text_of(visitor(cast.viewer).get(below("money?days=x")))


def test_the_costliest_have_colours_and_the_others_one(cast, below, monkeypatch):
    for number in range(7):
        spend(cast, cast.add_trigger(name=f"T{number}"), str(10 - number))
    page = visitor(cast.viewer).get(below("money")).content.decode()
    assert re.findall('class="busy-mark(?: s(\\d))? pale"', page) == ["", *"12345"]
    # 7 triggers in 90 days might be more groups than the API tells of, if it told of fewer.
    monkeypatch.setattr(money, "_MOST_GROUPS", 7 * 90 - 1)
    whole = visitor(cast.viewer).get(below("money?days=90"))
    assert re.findall('class="busy-mark s(\\d) pale"', whole.content.decode()) == ["5"]
    assert "Choose fewer days" in text_of(whole)


def test_a_page_does_without_costs_while_the_api_is_too_busy(cast, below, monkeypatch):
    monkeypatch.setattr(money, "ask_if_free", lambda *_, **__: {})
    assert "busy with other figures" in text_of(visitor(cast.viewer).get(below("money")))
