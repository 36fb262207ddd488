"""Staff see the events of a run when they ask for them, and the audit log says so."""

import html

from audit.models import AuditEntry
from pipedai.admin.tests.test_pages import text_of
from pipedai.admin.values import page_of
from testing.processes.worker_calls import WorkerCalls
from testing.world.runs import Runs
from triggers.admin import panels
from triggers.models import Run


def looked(run):
    return list(
        AuditEntry.objects.filter(target_id=run, action="run.events-read").values_list(
            "actor_type", "metadata"
        )
    )


def test_events_are_shown_when_staff_ask_and_each_look_is_audited(desk, cast, monkeypatch):
    monkeypatch.setattr(panels, "_SHOWN", 2)
    run = Runs.of(cast, record_events="always").running()
    page = page_of(Run, run)
    assert "because its worker has sent none" in html.unescape(text_of(desk.get(page)))
    WorkerCalls(cast.worker).events(run, 1, 2, 3, text="<b>A planted text</b>")
    shown = text_of(desk.get(page))
    assert "Show the 3 events" in shown
    assert "planted text" not in shown
    assert looked(run) == []
    shown = text_of(desk.get(page, {"events": "0"}))
    assert shown.count("&lt;b&gt;A planted text") == 2
    assert '?events=2"' in shown
    shown = text_of(desk.get(page, {"events": "2"}))
    assert shown.count("A planted text") == 1
    assert looked(run) == [("staff", {"after": 0}), ("staff", {"after": 2})]


def test_a_number_that_is_none_shows_the_first(desk, cast):
    run = Runs.of(cast, record_events="always").running()
    WorkerCalls(cast.worker).events(run, 1)
    assert "Reading…" in text_of(desk.get(page_of(Run, run), {"events": "x"}))
