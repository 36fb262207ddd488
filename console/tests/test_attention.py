"""What needs somebody, the incidents, and a trigger's revisions with what each changed."""

import re
from datetime import UTC, datetime
from html import unescape

import pytest
from django.urls import resolve

from console.screens.runs import page_of
from console.screens.triggers import _changes
from console.templatetags.console import timed
from console.tests.visits import text_of, typed_in, visitor
from notices.models import Channel, Incident
from notices.states import NEEDS, Kind, SubjectType
from pipedai.ids import new_id
from pipedai.sql import database_now
from pipedai_cli import output
from testing.world.cast import TEST_ACTOR
from testing.world.channels import add_channel
from testing.world.connections import add_oauth_connection
from testing.world.runs import Runs
from triggers.models import Trigger
from triggers.reasons import DUE_TIMES, ENDS, HINDRANCES, without_calls
from triggers.services import TRIGGERS

HOSTILE = "<img src=x onerror=alert(1)> javascript:alert(1) \x1b[31mred\x1b[0m \u202egnp.exe"
SEEN = "<img src=x onerror=alert(1)> javascript:alert(1) \\u001b[31mred\\u001b[0m \\u202egnp.exe"


@pytest.fixture
def page(cast):
    return f"/console/environments/{cast.environment.id}/attention"


def test_a_failure_says_why_who_was_told_and_what_to_do(cast, page):
    add_channel(cast, "email", name="On call")
    trigger_id = cast.add_trigger(name="Morning report")
    runs = Runs(cast, trigger_id, now=database_now())
    run_id = runs.ended("failed", faultClass="client", errorMessage=HOSTILE)
    answer = visitor(cast.admin).get(page)
    text, html = text_of(answer), answer.content.decode()
    assert "1 thing needs you" in text
    assert "1 ended: 0 succeeded, 1 failed" in text
    assert "Trigger Morning report is failing." in text
    assert "correct the trigger's prompt, model, MCP server or headers; then run it again." in text
    assert f"On its way to {cast.admin.email} by the channel On call" in text
    assert SEEN in text
    assert not re.search("<img src=x|alertAfter|PATCH|faultClass", html)
    for path in (f"runs/{run_id}", f"runs/{run_id}/rerun", f"triggers/{trigger_id}/switch"):
        assert f'"/console/{path}"' in html
    assert not re.search(
        "/rerun|/switch|/acknowledge", visitor(cast.viewer).get(page).content.decode()
    )


def test_what_somebody_has_seen_goes_behind_what_nobody_has(cast, page):
    for name in ("First", "Second"):
        Runs.of(cast, name=name).ended("failed", faultClass="client")
    operator = visitor(cast.operator)
    newest = Incident.objects.latest("opened_at")
    path = f"/console/incidents/{newest.id}/acknowledge"
    assert path in operator.get(page).content.decode()
    assert operator.post(path, {"next": page})["Location"] == page
    assert visitor(cast.viewer).post(path, {"next": page}).status_code == 403
    assert visitor(cast.stranger).post(path, {"next": page}).status_code == 404
    text = text_of(operator.get(page))
    assert text.index("Trigger First") < text.index("Trigger Second") < text.index("Seen ")


def test_a_remedy_names_no_call_of_the_api(cast, page):
    remedies = [need.remedy for need in NEEDS.values()]
    remedies += [why.remedy for why in (*ENDS.values(), *DUE_TIMES.values())]
    remedies += [each.remedy for each in HINDRANCES.values()]
    for remedy in remedies:
        said = without_calls(remedy)
        assert not re.search(r"/|[A-Z]{3,4} |[a-z][A-Z]|_", said.replace("MCP ", "")), said
        assert said == output.without_calls(remedy), "the command line says the same"
    asked = "Decide on its page, https://a.example/approvals/1. All."
    assert without_calls(asked) == "Decide on its page. All."


def test_every_item_leads_to_a_page(cast, page):
    add_channel(cast, "slack")
    Channel.objects.update(failing_since=datetime.now(UTC), last_error="No such host.")
    add_oauth_connection(cast, connected_by=cast.stranger)
    Runs.of(cast).ended("failed", faultClass="client")
    html = visitor(cast.owner).get(page).content.decode()
    assert "Notices given up" in html
    assert "Its user has left" in html
    assert "Open the connection" in html
    for link in re.findall('href="(/console/[^"?]+)', html):
        resolve(link)


def test_each_subject_of_an_incident_has_a_page_and_words_for_its_link():
    for subject in SubjectType.values:
        path, link = page_of({"type": subject, "id": new_id()}, new_id())
        assert resolve(path).namespace == "console", subject
        assert link, subject


def test_when_nothing_needs_anybody_it_says_what_is_due_next(cast, page):
    assert "Nothing is due" in text_of(visitor(cast.viewer).get(page))
    due = datetime(2100, 1, 4, 5, tzinfo=UTC)
    trigger_id = cast.add_trigger(name="Report", schedule="0 6 * * *", timezone="Europe/Berlin")
    Trigger.objects.filter(id=trigger_id).update(next_run_at=due)
    text = text_of(visitor(cast.viewer).get(page))
    assert "Nothing needs you" in text
    assert "Next due: Report Mon 4 Jan 2100, 05:00 UTC" in text


def test_incidents_tell_who_was_told_and_when_it_was_over(cast):
    add_channel(cast, "email", name="On call")
    runs = Runs.of(cast, name="Report")
    runs.ended("failed", faultClass="client")
    runs.ended("succeeded")
    Runs.of(cast, name="Other").ended("failed", faultClass="client")
    client, path = visitor(cast.viewer), f"/console/environments/{cast.environment.id}/incidents"
    assert text_of(client.get(path)).count("by the channel On call") == 2
    closed = text_of(client.get(path, {"status": "closed"}))
    assert "Report" in closed
    assert "Other" not in closed
    assert client.get(path, {"kind": "nonsense"}).status_code == 400
    offered = re.findall('<option value="([a-z_]+)"', client.get(path).content.decode())
    assert offered == [*Kind.values]


def test_a_revision_shows_what_it_changed_and_is_restored(cast):
    path = f"/console/triggers/{cast.trigger_id}/revisions"
    changes = (
        {"prompt": "long " * 50_000},
        {"prompt": f"Be brief.\n{HOSTILE}"},
        {"model": "a-model"},
    )
    for values in changes:
        TRIGGERS.update(cast.trigger_id, values=values, actor=TEST_ACTOR)
    Runs(cast, cast.trigger_id, database_now()).ended("failed")
    admin = visitor(cast.admin)
    listed = admin.get(path)
    assert "Last 30 runs: 1 failed" in text_of(listed)
    assert text_of(listed).count("no run of that time has ended") == 3
    assert "Prompt +2 −1" in text_of(listed)
    assert "+ a-model" in text_of(listed)
    assert f"+ {SEEN}" in text_of(listed)
    assert "<img src=x" not in listed.content.decode()
    assert len(listed.content) < 30_000
    assert path in admin.get(f"/console/triggers/{cast.trigger_id}").content.decode()
    *_, first = re.findall(f'"({path}/[0-9a-f-]+/restore)"', listed.content.decode())
    assert "/restore" not in visitor(cast.viewer).get(path).content.decode()
    asked = text_of(admin.get(first))
    assert "- Be brief." in asked
    assert "- a-model" in asked
    assert admin.post(first)["Location"] == f"/console/triggers/{cast.trigger_id}"
    assert Trigger.objects.get(id=cast.trigger_id).revision.model is None
    assert visitor(cast.operator).post(first).status_code == 403


def test_a_page_of_revisions_compares_its_last_one_with_the_next_page(cast):
    for n in range(25):
        TRIGGERS.update(cast.trigger_id, values={"prompt": f"No. {n}"}, actor=TEST_ACTOR)
    path = f"/console/triggers/{cast.trigger_id}/revisions"
    client = visitor(cast.admin)
    first = client.get(path)
    assert "- No. 4 + No. 5" in text_of(first)
    (older,) = re.findall(r'href="(\?cursor=[^"]+)"', first.content.decode())
    second = client.get(path + older)
    assert "- No. 3 + No. 4" in text_of(second)
    restore = re.findall(r'href="([^"]+/restore\?cursor=[^"]+)"', second.content.decode())[0]
    assert client.get(restore).status_code == 200
    assert client.get(restore.partition("?")[0]).status_code == 404


def lines(old, new):
    return [mark + line for mark, line in _changes({"prompt": old}, {"prompt": new})[0]["lines"]]


def test_changes_leave_out_what_is_the_same_and_long_ones_are_not_compared():
    same = "\n".join(str(n) for n in range(100))
    changed = lines(f"{same}\nold\n{same}", f"{same}\nnew\n{same}")
    assert changed == [" 98", " 99", "-old", "+new", " 0", " 1"]
    twice = lines("a\n1\n2\n3\n4\n5\n6\nb", "A\n1\n2\n3\n4\n5\n6\nB")
    assert twice == ["-a", "+A", " 1", " 2", " …", " 5", " 6", "-b", "+B"]
    whole = _changes({"prompt": "x\ny\n" * 70_000}, {"prompt": "y\n" * 130_000})[0]
    assert len(whole["lines"]) == 60
    assert _changes({"prompt": "a"}, {"prompt": "a"}) == []


def test_what_one_is_to_type_is_shown_as_code():
    assert timed("Type `a <b>` there.") == "Type <code>a &lt;b&gt;</code> there."


def test_the_filters_of_the_runs_behind_a_figure_have_its_beginning(cast, page):
    """A browser empties a field for a time whose value has a zone, and applying the filters would drop it."""
    Runs(cast, cast.trigger_id, now=database_now()).ended()
    client = visitor(cast.viewer)
    (link,) = re.findall(r'href="([^"]+status=succeeded[^"]+)"', client.get(page).content.decode())
    runs = client.get(unescape(link))
    (since,) = typed_in(runs)["from"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d", since)
