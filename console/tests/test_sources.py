"""Sources in the console: make one, see what came and why it started nothing, replay it, and no secret is shown."""

import json

from console.tests.visits import text_of, typed_in, visitor
from pipedai.sql import database_now
from testing.world.events import SOURCE_SECRET, add_source, listen
from triggers.events.tests.test_receive import post, signed
from triggers.models import Event, EventSource, RefusedRequest, Run, Trigger


def test_an_admin_makes_a_source_and_reads_what_to_paste(cast):
    admin = visitor(cast.admin)
    path = f"/console/environments/{cast.environment.id}/settings/sources"
    assert f"{path}/new?scheme=stripe" in admin.get(path).content.decode()
    form = {"name": "Payments", "secrets": "short", "scheme": "stripe", "enabled": "true"}
    wrong = admin.post(f"{path}/new?scheme=stripe", form)
    assert wrong.status_code == 400
    assert "at least 16 characters" in text_of(wrong)
    both = {**form, "secrets": f"{SOURCE_SECRET}\r\nanother-secret-of-it"}
    made = admin.post(f"{path}/new?scheme=stripe", both)
    source = EventSource.objects.get()
    assert made["Location"] == f"/console/sources/{source.id}"
    page = admin.get(made["Location"])
    assert f"http://localhost:8000/api/v1/hooks/{source.id}" in text_of(page)
    assert SOURCE_SECRET not in page.content.decode()
    event = json.dumps({"id": "evt_1"}).encode()
    assert post(source.id, *signed("stripe", event)).status_code == 202
    # A form without a secret keeps both.
    saved = admin.post(made["Location"], {"name": "Payments", "secrets": "", "enabled": ""})
    assert saved.status_code == 303
    assert post(source.id, *signed("stripe", event)).status_code == 401


def test_an_operator_reads_which_clause_did_not_hold_and_replays(cast):
    source_id = add_source(cast)
    clause = {"path": "/action", "op": "eq", "value": "opened"}
    listener = listen(cast.trigger_id, source_id=source_id, where=[clause])
    event_id = post(source_id, *signed("github", b'{"action": "<b>closed"}')).json()["id"]
    operator = visitor(cast.operator)
    assert "Filtered" in text_of(operator.get(f"/console/sources/{source_id}"))
    page = operator.get(f"/console/events/{event_id}")
    assert '/action eq "opened" did not hold: the value was "<b>closed"' in text_of(page)
    assert "<b>closed" not in page.content.decode()
    assert Trigger.objects.get(id=cast.trigger_id).name in text_of(page)
    listener.where = None
    listener.save()
    path = f"/console/events/{event_id}/replay"
    assert "Decide the event anew?" in text_of(operator.get(path))
    assert not Run.objects.exists()
    replayed = operator.post(path)
    new = Event.objects.get(replay_of=event_id)
    assert replayed["Location"] == f"/console/events/{new.id}"
    assert "The run" in text_of(operator.get(replayed["Location"]))
    run = Run.objects.get()
    assert run.event_id == new.id
    link = f'href="/console/events/{new.id}"'
    assert link in operator.get(f"/console/runs/{run.id}").content.decode()
    assert link not in visitor(cast.viewer).get(f"/console/runs/{run.id}").content.decode()


def test_a_script_is_shown_the_lines_that_send_an_event_and_a_trigger_is_made_for_it(cast):
    admin = visitor(cast.admin)
    odd = {"header": "X-Sent", "prefix": "v1='$(reboot)", "timestampHeader": None}
    shown = admin.get(f"/console/sources/{add_source(cast, 'hmac', hmac=odd)}")
    assert """ -H 'X-Sent: v1='"'"'$(reboot)'"$(printf""" in text_of(shown)
    stamped = {**odd, "timestampHeader": "X-At"}
    for scheme, hmac in (("hmac", stamped), ("github", None)):
        source_id = add_source(cast, scheme, **({"hmac": hmac} if hmac else {}))
        assert "from a shell" not in text_of(admin.get(f"/console/sources/{source_id}"))
    source_id = add_source(cast, "bearer")
    shown = admin.get(f"/console/sources/{source_id}")
    assert """ -H 'Authorization: Bearer '"$SECRET" -d""" in text_of(shown)
    path = f"/console/environments/{cast.environment.id}/triggers/new?source={source_id}"
    assert path in shown.content.decode()
    assert typed_in(admin.get(path))["on.0.sourceId"] == [str(source_id)]


def test_its_page_says_why_nothing_comes_and_is_live(cast):
    source_id = add_source(cast)
    page = f"/console/sources/{source_id}"
    assert "Refused in the last day" not in text_of(visitor(cast.viewer).get(page))
    post(source_id, headers={})
    post(source_id, *signed("github", b"no JSON"))
    assert post(source_id).status_code == 202
    shown = visitor(cast.viewer).get(page)
    for words in ("Refused in the last day", "No signature.", "The body was not JSON.", "push"):
        assert words in text_of(shown)
    assert 'data-follows="source"' in shown.content.decode()


def test_a_viewer_sees_the_source_and_no_event(cast):
    source_id = add_source(cast)
    listen(cast.trigger_id, source_id=source_id)
    event_id = post(source_id).json()["id"]
    viewer = visitor(cast.viewer)
    run = text_of(viewer.get(f"/console/runs/{Run.objects.get().id}"))
    assert "Its payload came with an event. Operators see it." in run
    page = viewer.get(f"/console/sources/{source_id}")
    assert page.status_code == 200
    assert "Decision" not in text_of(page)
    assert viewer.get(f"/console/events/{event_id}").status_code == 403


def test_its_hours_are_drawn_and_where_all_is_refused_comes_first(cast):
    source_id, shut = add_source(cast), add_source(cast, name="Shut")
    listen(cast.trigger_id, source_id=source_id)
    assert post(source_id).status_code == 202
    post(shut, headers={})
    viewer = visitor(cast.viewer)
    page = viewer.get(f"/console/environments/{cast.environment.id}/settings/sources")
    text = text_of(page)
    assert text.index("Shut GitHub All are refused") < text.index("Repository GitHub Healthy")
    assert "In 24 hours 1 came, 1 started something, 0 were refused" in text
    shown = text_of(viewer.get(f"/console/sources/{source_id}"))
    assert "1 came, and 1 of them started something; none was refused." in shown
    now = database_now()
    RefusedRequest.objects.create(
        environment=cast.environment, source_id=source_id, reason="stale", count=2, last_at=now,
        hour=now.replace(minute=0, second=0, microsecond=0),
    )  # fmt: skip
    assert "Most are refused" in text_of(viewer.get(f"/console/sources/{source_id}"))
    assert Trigger.objects.get(id=cast.trigger_id).name in shown
