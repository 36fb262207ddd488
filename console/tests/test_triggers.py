"""The list of triggers, a trigger's page, and the forms that make and change one."""

import re
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import pytest
from django.test import Client

from console.asking import ask_if_free
from console.screens import triggers
from console.tests.visits import text_of, typed_in, visitor
from pipedai.sql import database_now
from testing.world.events import add_source
from testing.world.runs import LOOK, Runs, allow
from testing.world.sealed import headers_of
from triggers.models import Run, Tick, Trigger

TYPED = {
    "name": "Morning report",
    "prompt": "Say what happened.",
    "mcpUrl": "https://mcp.example.com/mcp",
    "mcpHeaders.name": "Authorization",
    "mcpHeaders.value": "Bearer planted-console-secret",
    "schedule": "0 6 * * mon-fri",
    "timezone": "Europe/Berlin",
    "enabled": "true",
    "maxRetries": "3",
    "timeoutSeconds": "1800",
    "preferSeconds": "60",
    "alertAfterFailures": "1",
    "overlapPolicy": "queue",
    "retryMode": "restart",
    "retryAfterEffects": "true",
}


@pytest.fixture
def page_of(cast):
    """Returns the path of a trigger's page; without an id that of the cast's trigger."""
    return lambda trigger_id=None: f"/console/triggers/{trigger_id or cast.trigger_id}"


def test_the_list_has_the_costs_of_the_month_that_the_database_has(cast, monkeypatch):
    """The web process may have another month, as its clock is ahead or behind: so it must not name the time itself."""
    Runs(cast, cast.trigger_id, now=datetime.now(UTC)).ended(costUsd="1.25")
    asked = []

    def noting(*call, **more):
        asked.append(more["query"])
        return ask_if_free(*call, **more)

    monkeypatch.setattr(triggers, "ask_if_free", noting)
    path = f"/console/environments/{cast.environment.id}/triggers"
    assert "$1.25" in text_of(visitor(cast.viewer).get(path))
    assert asked == [{"groupBy": "trigger", "period": "month"}]


def test_a_link_of_another_site_leads_to_a_trigger_with_a_schedule(cast, page_of):
    client = Client(headers={"sec-fetch-site": "cross-site"})
    client.cookies = visitor(cast.viewer).cookies
    scheduled = cast.add_trigger(schedule="0 6 * * *")
    assert "At 06:00" in text_of(client.get(page_of(scheduled)))


def test_the_list_says_in_which_zone_a_schedule_has_its_hours(cast):
    cast.add_trigger(schedule="30 6 * * *", timezone="Asia/Tokyo")
    path = f"/console/environments/{cast.environment.id}/triggers"
    assert "06:30, every day (Asia/Tokyo)" in text_of(visitor(cast.viewer).get(path))


def key_on(page):
    (key,) = set(re.findall(r'name="key" value="([0-9a-f-]{36})"', page.content.decode()))
    return key


def test_a_trigger_is_made_and_changed_and_its_secrets_stay(cast, page_of):
    admin = visitor(cast.admin)
    path = f"/console/environments/{cast.environment.id}/triggers/new"
    # Only a trigger that there is has runs which can be queued.
    queued = "Runs that are queued already keep their prompt."
    assert queued not in text_of(admin.get(path))
    assert queued in text_of(admin.get(f"{page_of()}/edit"))
    wrong = admin.post(path, {**TYPED, "schedule": "0 25 * * *", "maxRetries": "11"})
    assert wrong.status_code == 400
    page = wrong.content.decode()
    assert 'id="field-schedule-error"' in page
    # The browser's zone takes the place of UTC in a new form alone, and not of what somebody has typed.
    fresh = admin.get(path).content.decode()
    assert ("data-fresh" in fresh, "data-fresh" in page) == (True, False)
    assert "2 fields need correcting" in text_of(wrong)
    assert "planted-console-secret" in page  # It is still the visitor's own typing.
    made = admin.post(path, TYPED)
    trigger = Trigger.objects.get(name="Morning report")
    assert (made.status_code, made["Location"]) == (303, page_of(trigger.id))
    sealed = trigger.mcp_headers
    assert sealed
    form = admin.get(page_of(trigger.id) + "/edit").content.decode()
    assert "planted-console-secret" not in form
    assert "Values that are left empty stay" in form
    changed = {**TYPED, "name": "Evening report", "mcpHeaders.name": "", "mcpHeaders.value": ""}
    assert admin.post(page_of(trigger.id) + "/edit", changed).status_code == 303
    trigger.refresh_from_db()
    assert trigger.name == "Evening report"
    assert trigger.mcp_headers == sealed


def test_a_header_is_replaced_added_or_taken_away_alone(cast, page_of):
    admin, path = visitor(cast.admin), page_of() + "/edit"
    url = f"/api/v1/triggers/{cast.trigger_id}"
    old = {"X-Stays": "planted-one", "X-Changes": "planted-two", "X-Goes": "planted-three"}
    cast.client(cast.admin).patch(url, {"mcpHeaders": old})
    page = admin.get(path).content.decode()
    assert "planted-" not in page
    for name in old:
        assert f'name="mcpHeaders.had" value="{name}"' in page
        assert f'name="mcpHeaders.name" value="{name}"' in page
    typed = {
        **TYPED,
        "mcpUrl": cast.client(cast.admin).get(url).json()["mcpUrl"],
        "mcpHeaders.had": list(old),
        "mcpHeaders.name": ["X-Stays", "X-Changes", "X-New"],
        "mcpHeaders.value": ["", "planted-newer", "planted-four"],
    }
    unknown = {**typed, "mcpHeaders.value": ["", "planted-newer", ""]}
    assert "Type the name and the value" in text_of(admin.post(path, unknown))
    assert admin.post(path, typed).status_code == 303
    kept = {"X-Stays": "planted-one", "X-Changes": "planted-newer", "X-New": "planted-four"}
    assert headers_of(cast.trigger_id) == kept


def test_running_twice_with_one_form_makes_one_run(cast, page_of):
    operator = visitor(cast.operator)
    form = {"key": key_on(operator.get(page_of())), "payload.0.name": "day"}
    form |= {"payload.0.kind": "text", "payload.0.value": "monday"}
    led = {operator.post(page_of() + "/run", form)["Location"] for _ in range(2)}
    (run,) = Run.objects.filter(trigger_id=cast.trigger_id)
    assert led == {f"/console/runs/{run.id}"}
    got = cast.client(cast.viewer).get(f"/api/v1/runs/{run.id}").json()
    assert got["payload"] == {"day": "monday"}
    assert "Queued" in text_of(operator.get(page_of()))


def test_a_machine_is_let_look_and_the_page_shows_the_runs_that_found_nothing(cast, page_of):
    runs = Runs.of(cast, before=LOOK)
    runs.quiet()
    operator, page = visitor(cast.operator), page_of(runs.trigger_id)
    shown = operator.get(page)
    assert "The agent starts only if" not in text_of(shown)
    assert "list_pulls tells something new" in text_of(shown)
    assert "Nothing new" in text_of(shown)
    led = operator.post(page + "/run", {"key": key_on(shown), "lookOnly": "true"})
    (run,) = Run.objects.filter(trigger_id=runs.trigger_id, look_only=True)
    assert led["Location"] == f"/console/runs/{run.id}"
    assert "Only look" not in text_of(operator.get(page_of()))


def test_clauses_fields_and_windows_are_typed_in_rows(cast, page_of):
    admin, edit = visitor(cast.admin), f"{page_of()}/edit"
    source_id = add_source(cast)
    values = {
        "in": ["opened", "5", 5, None],
        "eq": "a, b",
        "ne": None,
        "exists": True,
        "contains": "",
    }
    where = [{"path": f"/{op}", "op": op, "value": value} for op, value in values.items()]
    entry = {
        "sourceId": str(source_id),
        "types": None,
        "where": where,
        "fields": {"title": "/pull_request/title"},
        "coalesce": {"path": "/number", "windowSeconds": 60, "keep": "all"},
    }
    api, path = cast.client(cast.admin), f"/api/v1/triggers/{cast.trigger_id}"
    before = {**LOOK, "runIf": where}
    set_up = api.patch(
        path,
        {"on": [entry], "before": before, "mcpUrl": "https://mcp.example.com/mcp"},
        format="json",
    )
    assert set_up.status_code == 200, set_up.json()
    # What the form shows is sent again as it is, and changes nothing.
    shown = typed_in(admin.get(edit))
    assert admin.post(edit, shown).status_code == 303
    assert (api.get(path).json()["on"], api.get(path).json()["before"]) == ([entry], before)
    added = admin.post(edit, shown | {"add": "on.0.where"})
    assert 'name="on.0.where.5.path"' in added.content.decode()
    removed = typed_in(admin.post(edit, shown | {"remove": "on.0.where.0"}))
    assert (removed["on.0.where.0.path"], "on.0.where.4.path" in removed) == (["/eq"], False)
    wrong = admin.post(edit, shown | {"on.0.where.0.path": "x"})
    assert 'id="field-on.0.where.0.path-error"' in wrong.content.decode()
    none = {name: value for name, value in shown.items() if "where" not in name}
    assert admin.post(edit, none | {"on.0.coalesce.windowSeconds": ""}).status_code == 303
    (left,) = api.get(path).json()["on"]
    assert (left["where"], left["coalesce"]) == (None, None)


def test_the_form_has_a_section_for_looks(cast, page_of):
    admin = visitor(cast.admin)
    form = {**TYPED, "before.tool": "list_pulls", "before.arguments.0.name": "state"}
    form |= {"before.arguments.0.kind": "text", "before.arguments.0.value": "open"}
    form |= {"before.runIf": "changed", "carry": "output"}
    assert admin.post(page_of() + "/edit", form).status_code == 303
    got = cast.client(cast.viewer).get(f"/api/v1/triggers/{cast.trigger_id}").json()
    assert (got["before"], got["carry"]) == (LOOK, "output")
    shown = text_of(admin.get(page_of() + "/edit"))
    assert "Only when something is new" in shown
    assert admin.post(page_of() + "/edit", form | {"before.tool": ""}).status_code == 303
    got = cast.client(cast.viewer).get(f"/api/v1/triggers/{cast.trigger_id}").json()
    assert got["before"] is None


def test_what_prevents_a_run_is_said_on_the_page(cast, page_of):
    homeless = cast.add_trigger(worker_id=None)
    page = visitor(cast.operator).post(page_of(homeless) + "/run")
    assert page.status_code == 409
    assert 'role="alert"' in page.content.decode()
    wrong = visitor(cast.operator).post(page_of() + "/run", {"payload": "{"})
    assert wrong.status_code == 400
    assert "Malformed JSON" in text_of(wrong)


def test_a_trigger_is_paused_resumed_and_deleted_after_a_question(cast, page_of):
    admin = visitor(cast.admin)
    admin.post(page_of() + "/switch", {"enabled": "false"})
    paused = text_of(admin.get(page_of()))
    assert "Resume" in paused
    assert "Run now" not in paused
    admin.post(page_of() + "/switch", {"enabled": "true"})
    assert Trigger.objects.get(id=cast.trigger_id).enabled
    question = admin.get(page_of() + "/delete")
    assert "can't be brought back" in text_of(question)
    assert Trigger.objects.get(id=cast.trigger_id).deleted_at is None
    assert admin.post(page_of() + "/delete").status_code == 303
    assert admin.get(page_of()).status_code == 404


def test_a_page_offers_what_the_role_may_do(cast, page_of):
    offers = {
        "viewer": [],
        "operator": ["Run now"],
        "admin": ["Run now", "Pause", "Edit", "Delete"],
    }
    for role, offered in offers.items():
        shown = text_of(visitor(getattr(cast, role)).get(page_of()))
        found = [each for each in offers["admin"] if f" {each} " in shown]
        assert found == offered, role
    assert visitor(cast.viewer).post(page_of() + "/run").status_code == 403
    assert visitor(cast.operator).post(page_of() + "/switch").status_code == 403
    assert visitor(cast.operator).post(page_of() + "/delete").status_code == 403


def test_the_line_shows_what_became_of_each_due_time_and_what_comes(cast, page_of):
    scheduled = cast.add_trigger(schedule="0 6 * * *", timezone="Europe/Berlin")
    runs = Runs(cast, scheduled, now=Runs.of(cast).now)
    failed = runs.running()
    Run.objects.filter(id=failed).update(scheduled_for=runs.now)
    Tick.objects.create(
        environment_id=cast.environment.id,
        trigger_id=scheduled,
        tick_at=runs.now,
        last_tick_at=runs.now,
        decision="fired",
        run_id=failed,
    )
    shown = text_of(visitor(cast.viewer).get(page_of(scheduled)))
    assert "At 06:00, in Europe/Berlin" in shown
    line = shown[shown.index("Due times") :]
    assert line.count("Running") == 1
    assert line.count("To come") == 5
    assert re.search(r"\w+ \d+ \w+( \d{4})?, 0[45]:00 UTC To come in ", line)


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ({"schedule": "30 2 * * mon", "timezone": "Europe/Berlin"}, "At 02:30, only on Monday"),
        ({"schedule": "61 * * * *", "timezone": "UTC"}, "wrong"),
        ({"schedule": "0 6 * * *", "timezone": "Mars/Base"}, "wrong"),
        ({"schedule": "", "timezone": ""}, ""),
    ],
)
def test_the_next_due_times_show_as_one_types(typed, shown, cast):
    path = f"/console/environments/{cast.environment.id}/schedule-preview"
    part = visitor(cast.viewer).post(path, typed).content.decode()
    assert shown in part
    assert part.count("<time") == (5 if "At" in shown else 0)


def test_the_single_due_time_shows_as_one_types(cast):
    path = f"/console/environments/{cast.environment.id}/schedule-preview"
    soon = datetime.now(UTC) + timedelta(days=1)
    typed = {"timezone": "Asia/Tokyo", "runOnceAt": soon.strftime("%Y-%m-%dT%H:%M")}
    part = text_of(visitor(cast.viewer).post(path, typed))
    assert f"{soon:%H:%M} UTC" in part
    late = visitor(cast.viewer).post(path, {**typed, "runOnceAt": "2020-01-01T00:00"})
    assert "Must be in the future" in text_of(late)


def test_a_part_of_a_page_without_a_session_leads_from_the_whole_page_to_sign_in_and_back(cast):
    page = f"/console/environments/{cast.environment.id}/triggers/new"
    headers = {"hx-request": "true", "hx-current-url": f"http://localhost:8000{page}"}
    path = f"/console/environments/{cast.environment.id}/schedule-preview"
    answer = visitor().post(path, {"schedule": "* * * * *"}, headers=headers)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer["HX-Redirect"] == f"/console/sign-in?{urlencode({'next': page})}"


def test_without_javascript_a_button_shows_them_and_keeps_what_was_typed(cast):
    path = f"/console/environments/{cast.environment.id}/triggers/new"
    page = visitor(cast.admin).post(path, {**TYPED, "preview": "true"})
    assert page.status_code == 200
    assert page.content.decode().count("<time") == 5
    assert 'value="Morning report"' in page.content.decode()
    assert not Trigger.objects.filter(name="Morning report").exists()


def test_a_list_is_filtered_in_the_url_and_goes_on(cast):
    for number in range(51):
        cast.add_trigger(name=f"Report {number:02}")
    client = visitor(cast.viewer)
    page = client.get(
        f"/console/environments/{cast.environment.id}/triggers", {"search": "report 0"}
    )
    assert page.content.decode().count("<tr>") == 11
    first = client.get(f"/console/environments/{cast.environment.id}/triggers?search=report")
    (older,) = re.findall(r'href="(\?[^"]+)" rel="next"', first.content.decode())
    assert "search=report" in older
    second = client.get(
        f"/console/environments/{cast.environment.id}/triggers{older.replace('&amp;', '&')}"
    )
    assert second.content.decode().count("<tr>") == 3
    assert (
        client.get(
            f"/console/environments/{cast.environment.id}/triggers", {"health": "x"}
        ).status_code
        == 400
    )


def test_a_page_says_to_whom_a_trigger_listens_and_who_listens_to_it(cast, page_of):
    admin, upstream = visitor(cast.admin), cast.add_trigger(name="Collect")
    edit = f"{page_of()}/edit"
    entry = {"on.0.triggerId": str(upstream), "on.0.outcome": "failed"}
    assert admin.post(edit, {**TYPED, **entry}).status_code == 303
    page = text_of(admin.get(page_of()))
    assert "It listens to Collect , when a run of it has failed." in page
    assert "Its end starts Morning report ." in text_of(admin.get(page_of(upstream)))
    assert 'name="on.0.triggerId" type="text" ' in (form := admin.get(edit).content.decode())
    assert 'value="Collect"' in form
    named = {"on.0.triggerId": "Collect", "on.0.outcome": "any"}
    assert admin.post(edit, {**TYPED, **named}).status_code == 303
    got = cast.client(cast.admin).get(f"/api/v1/triggers/{cast.trigger_id}").json()
    assert [each["triggerId"] for each in got["on"]] == [str(upstream)]
    for text, said in (("Nobody", "Nothing has this name."), ("Twin", "Several have this name")):
        cast.add_trigger(name="Twin")
        cast.add_trigger(name="Twin")
        refused = admin.post(edit, {**TYPED, "on.0.triggerId": text})
        assert said in text_of(refused), text
    wrong = admin.post(edit, {**TYPED, "on.0.triggerId": "x"})
    assert "Or a trigger: Nothing has this name." in text_of(wrong)
    assert admin.post(edit, TYPED).status_code == 303
    assert "listens" not in text_of(admin.get(page_of()))


def test_a_single_due_time_is_set_shown_and_taken_away(cast, page_of):
    admin, edit = visitor(cast.admin), f"{page_of()}/edit"
    soon = (datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M")
    assert admin.post(edit, {**TYPED, "schedule": "", "runOnceAt": soon}).status_code == 303
    assert f'value="{soon}"' in admin.get(edit).content.decode()
    assert "To come" in text_of(admin.get(page_of()))
    assert admin.post(edit, {**TYPED, "schedule": "", "runOnceAt": ""}).status_code == 303
    assert Trigger.objects.get(id=cast.trigger_id).run_once_at is None


def test_several_are_paused_resumed_and_deleted_after_a_question(cast):
    admin = visitor(cast.admin)
    path = f"/console/environments/{cast.environment.id}/triggers"
    ids = [str(cast.add_trigger(name=f"T{number}")) for number in range(3)]
    shown = admin.get(path).content.decode()
    assert all(f'name="id" value="{each}"' in shown for each in ids)

    def enabled():
        return set(Trigger.objects.filter(id__in=ids).values_list("enabled", flat=True))

    assert admin.post(f"{path}/several", {"do": "pause", "id": ids})["Location"] == path
    assert enabled() == {False}
    admin.post(f"{path}/several", {"do": "resume", "id": ids})
    assert enabled() == {True}
    question = admin.post(f"{path}/several", {"do": "delete", "id": ids})
    assert "Delete 3 triggers?" in text_of(question)
    assert Trigger.objects.filter(id__in=ids, deleted_at=None).count() == 3
    answered = {"do": "delete", "id": [*ids, ids[0]], "key": key_on(question)}
    assert admin.post(f"{path}/several", answered)["Location"] == path
    assert Trigger.objects.filter(id__in=ids, deleted_at=None).count() == 0
    again = admin.post(f"{path}/several", answered)
    assert again.status_code == 409
    assert "0 of 3 done" in text_of(again)
    assert admin.post(f"{path}/several", {"do": "x", "id": ids}).status_code == 303
    operator = visitor(cast.operator).post(f"{path}/several", {"do": "pause", "id": ids[0]})
    assert operator.status_code in {403, 404, 409}


def test_enter_in_the_dialog_goes_to_the_first_that_is_found(cast, page_of):
    path = f"/console/environments/{cast.environment.id}/find"
    trigger_id = cast.add_trigger(name="Nightly")
    viewer = visitor(cast.viewer)
    assert viewer.get(path, {"q": "nightl", "go": "first"})["Location"] == page_of(trigger_id)
    for query in ({"q": "nightl"}, {"q": "none such", "go": "first"}, {"q": "", "go": "first"}):
        assert viewer.get(path, query).status_code == 200


def test_a_failing_trigger_counts_its_failures_in_the_order_in_which_runs_ended(cast, page_of):
    """A run that began later may have succeeded before the failure of one that took longer."""
    trigger_id = cast.add_trigger(alert_after_failures=1)
    allow(cast.worker.worker_id, 2)
    slow = Runs(cast, trigger_id, now=database_now() - timedelta(minutes=3))
    run_id = slow.running()
    Runs(cast, trigger_id, now=slow.now + timedelta(minutes=1)).ended()
    slow.wait(minutes=2)
    slow.complete(run_id, "failed", faultClass="client", errorMessage="The disk is full.")
    text = text_of(visitor(cast.viewer).get(page_of(trigger_id)))
    assert "The last run failed. The disk is full." in text


def test_a_description_of_several_lines_has_a_field_that_keeps_them(cast, page_of):
    trigger_id = cast.add_trigger(description="What it is.\nWho asked for it.")
    form = visitor(cast.admin).get(f"{page_of(trigger_id)}/edit")
    assert typed_in(form)["description"] == ["What it is.\nWho asked for it."]
    assert '<textarea id="field-description"' in form.content.decode()
