"""The settings of an environment: people, keys, channels, the audit log, and the environment itself."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from django.db.models.functions import Now

from accounts.models import AccountMail
from console.tests.visits import text_of, visitor
from notices.models import Channel, Notice
from notices.states import EVENTS, USUAL_EVENTS
from testing.world.channels import add_channel
from testing.world.mails import MAIL_SERVER, invite_for_test, prove
from testing.world.users import UserFactory
from workspaces.models import ApiKey, Environment, Invitation, Membership

HOSTILE = "<img src=x onerror=alert(1)> javascript:alert(1)"


@pytest.fixture
def settings_page(cast):
    """Returns the path of a page of the settings."""
    return lambda more="": f"/console/environments/{cast.environment.id}/settings{more}"


def test_a_role_is_changed_and_the_last_owner_stays_in_words(cast, settings_page):
    owner = visitor(cast.owner)
    role = settings_page(f"/people/{cast.viewer.id}/role")
    assert owner.post(role, {"role": "operator"})["Location"] == settings_page()
    assert Membership.objects.get(user=cast.viewer).role == "operator"
    refused = owner.post(settings_page(f"/people/{cast.owner.id}/role"), {"role": "viewer"})
    assert refused.status_code == 409
    assert "owner" in text_of(refused).partition("People Member")[0]
    leaving = owner.post(settings_page("/people/leave"))
    assert leaving.status_code == 409
    assert "Leave production?" in text_of(leaving)
    assert 'role="alert"' in leaving.content.decode()
    admin = visitor(cast.admin).get(settings_page()).content.decode()
    assert f"/people/{cast.owner.id}/" not in admin
    assert '<option value="owner"' not in admin


def test_a_member_is_removed_after_a_question_and_anybody_may_leave(cast, settings_page):
    path = settings_page(f"/people/{cast.operator.id}/remove")
    owner = visitor(cast.owner)
    assert f"Remove {cast.operator.email}?" in text_of(owner.get(path))
    assert owner.post(path)["Location"] == settings_page()
    assert visitor(cast.viewer).post(settings_page("/people/leave"))["Location"] == "/console/"
    gone = [cast.operator, cast.viewer]
    assert not Membership.objects.filter(environment=cast.environment, user__in=gone).exists()


def test_without_a_mail_server_the_link_of_an_invitation_is_shown_once(cast, settings_page):
    prove(cast.admin)
    admin = visitor(cast.admin)
    form = {"email": "grace@example.com", "role": "operator"}
    page = admin.post(settings_page(), form)
    assert "hand this link over yourself" in text_of(page)
    (link,) = re.findall('id="token">([^<]+)<', page.content.decode())
    assert "/account/" in link
    assert link not in admin.get(settings_page()).content.decode()
    again = admin.post(settings_page(), form)
    assert again.status_code == 409
    assert "open invitation" in text_of(again)
    assert 'value="grace@example.com"' in again.content.decode()


def test_an_invitation_is_sent_anew_and_revoked(cast, settings, settings_page):
    settings.EMAIL_URL = MAIL_SERVER
    prove(cast.admin)
    invite_for_test(cast.environment, cast.admin, "grace@example.com")
    admin = visitor(cast.admin)
    old = Invitation.objects.get()
    form = {"email": old.email, "role": old.role}
    page = admin.post(settings_page(f"/invitations/{old.id}"), form)
    assert "A mail with a link is on its way" in text_of(page)
    new = Invitation.objects.get(revoked_at=None)
    assert new.id != old.id
    assert AccountMail.objects.filter(purpose="invitation", address=old.email).count() == 2
    path = settings_page(f"/invitations/{new.id}/revoke")
    assert "grace@example.com" in text_of(admin.get(path))
    assert admin.post(path)["Location"] == settings_page()
    assert not Invitation.objects.filter(revoked_at=None).exists()
    assert visitor(cast.operator).post(path).status_code == 403


def test_a_key_is_shown_once_and_revoked(cast, settings_page):
    admin = visitor(cast.admin)
    page = admin.get(settings_page("/keys")).content.decode()
    (lifetime,) = re.findall('value="([^"]+)" selected>90 days', page)
    form = {"name": HOSTILE, "role": "viewer", "expiresAt": lifetime}
    before = datetime.now(UTC)
    made = admin.post(settings_page("/keys"), form)
    (token,) = re.findall('id="token">(pwk_[^<]+)<', made.content.decode())
    assert "<img src=x" not in made.content.decode()
    key = ApiKey.objects.get(name=HOSTILE)
    assert key.role == "viewer"
    # The days are counted from now, and not from midnight.
    age = timedelta(days=90)
    assert key.expires_at
    assert before + age <= key.expires_at <= datetime.now(UTC) + age
    assert token not in admin.get(settings_page("/keys")).content.decode()
    wrong = admin.post(settings_page("/keys"), {**form, "name": " "})
    assert wrong.status_code == 400
    assert 'id="field-name-error"' in wrong.content.decode()
    path = settings_page(f"/keys/{key.id}/revoke")
    assert HOSTILE in text_of(admin.get(path))
    assert admin.post(path)["Location"] == settings_page("/keys")
    key.refresh_from_db()
    assert key.revoked_at is not None
    assert "New key" not in text_of(visitor(cast.operator).get(settings_page("/keys")))


def test_a_channel_is_made_changed_and_tested(cast, settings_page):
    admin = visitor(cast.admin)
    new = settings_page("/channels/new?kind=webhook")
    form = {
        "kind": "webhook",
        "name": "On call",
        "url": "https://hooks.example/planted-path-in-the-console",
        "secret": "short",
        "events": ["trigger_failing", "run.ended"],
        "enabled": "true",
    }
    wrong = admin.post(new, form)
    assert wrong.status_code == 400
    assert 'id="field-secret-error"' in wrong.content.decode()
    made = admin.post(new, {**form, "secret": "planted-secret-in-the-console"})
    channel = Channel.objects.get()
    page = f"/console/channels/{channel.id}"
    assert made["Location"] == page
    assert channel.events == ["trigger_failing", "run.ended"]
    kept = channel.url
    assert (channel.trigger_ids, channel.tells_when, channel.summary) == (None, "always", None)
    clauses = [{"path": "/output/found", "op": "gt", "value": 0}]
    change = {
        "name": "Nights",
        "events": ["trigger_late", "run.result"],
        "triggerIds": [str(cast.trigger_id)],
        "when": "",
        "when.0.path": "/output/found",
        "when.0.op": "gt",
        "when.0.value": "0",
        "summary.at": "07:00",
        "summary.timezone": "Europe/Berlin",
        "summary.weekdays": ["mon", "fri"],
        "enabled": "true",
    }
    more = admin.post(page, change | {"add": "when"}).content.decode()
    assert ('name="when.1.path"' in more, 'class="wrong"' in more) == (True, False)
    assert admin.post(page, change)["Location"] == page
    channel.refresh_from_db()
    assert (channel.name, channel.events, channel.url) == ("Nights", change["events"], kept)
    assert (channel.trigger_ids, channel.tells_when) == ([cast.trigger_id], clauses)
    days = ["mon", "fri"]
    assert channel.summary == {"at": "07:00", "timezone": "Europe/Berlin", "weekdays": days}
    html = admin.get(page).content.decode()
    for typed in (
        'value="07:00"',
        'value="/output/found"',
        'value="gt" selected',
        'value="fri" checked',
    ):
        assert typed in html
    for part in ({"summary.at": "7"}, {"when.0.path": "x"}, {"when": "never"}):
        answer = admin.post(page, {**change, **part})
        assert (answer.status_code, 'class="wrong"' in answer.content.decode()) == (400, True), part
    assert admin.post(page, {**change, "summary.at": "", "triggerIds": []})["Location"] == page
    channel.refresh_from_db()
    assert (channel.summary, channel.trigger_ids) == (None, None)
    assert admin.post(f"{page}/test")["Location"] == page
    shown = admin.get(page)
    assert "A test On its way" in text_of(shown)
    assert "Of these 1: 1 on its way." in text_of(shown)
    assert 'hx-trigger="every' in shown.content.decode()
    Notice.objects.update(status="delivered", delivered_at=Now(), next_attempt_at=None)
    assert 'hx-trigger="every' not in admin.get(page).content.decode()
    assert admin.post(page, {**change, "enabled": ""})["Location"] == page
    refused = admin.post(f"{page}/test")
    assert refused.status_code == 409
    assert 'role="alert"' in refused.content.decode()
    assert admin.post(f"{page}/delete")["Location"] == settings_page("/channels")


def test_one_of_many_triggers_is_found_by_its_name_in_a_row(cast, settings_page):
    admin = visitor(cast.admin)
    chosen = [str(cast.add_trigger(name=f"Report {number}")) for number in range(20)][:2]
    new = settings_page("/channels/new?kind=webhook")
    typed = {
        "kind": "webhook",
        "name": "Hook",
        "url": "https://hooks.example.com/x",
        "enabled": "1",
    }
    typed |= {"events": "run.ended", "when": "always", "triggerIds.0.id": ""}
    assert 'name="triggerIds.0.id"' in (shown := admin.get(new).content.decode())
    assert "Paste JSON" not in shown
    assert shown.count('<datalist id="zones">') == 1
    wrong = admin.post(new, {**typed, "triggerIds.0.id": "Nobody"})
    assert (wrong.status_code, "Nothing has this name." in text_of(wrong)) == (400, True)
    made = admin.post(new, {**typed, "triggerIds.0.id": "Report 0", "triggerIds.1.id": chosen[1]})
    page = admin.get(made["Location"])
    got = cast.client(cast.admin).get(f"/api/v1/channels/{made['Location'].split('/')[-1]}").json()
    assert got["triggerIds"] == sorted(chosen)
    assert 'value="Report 0"' in page.content.decode()
    assert admin.post(made["Location"], {**typed, "url": ""})["Location"] == made["Location"]
    got = cast.client(cast.admin).get(f"/api/v1/channels/{got['id']}").json()
    assert got["triggerIds"] is None


def test_a_new_channel_tells_of_all_that_a_channel_usually_tells(cast, settings_page):
    page = visitor(cast.admin).get(settings_page("/channels/new?kind=webhook")).content.decode()
    boxes = re.findall(r'name="events" type="checkbox" value="([^"]+)"( checked)?', page)
    assert [event for event, _ in boxes] == [*EVENTS]
    assert {event for event, checked in boxes if checked} == set(USUAL_EVENTS)
    mail = visitor(cast.admin).get(settings_page("/channels/new")).content.decode()
    assert re.findall(r'name="events" type="checkbox" value="([^"]+)"', mail) == [
        event for event in EVENTS if event != "run.ended"
    ]


def test_a_channel_of_mail_says_who_has_agreed(cast, settings, settings_page):
    settings.EMAIL_URL = MAIL_SERVER
    channel = add_channel(cast, "email", emails=[cast.admin.email, "grace@example.com"])
    assert "1 not agreed" in text_of(visitor(cast.admin).get(settings_page("/channels")))
    text = text_of(visitor(cast.admin).get(f"/console/channels/{channel.id}"))
    assert f"{cast.admin.email} A member" in text
    assert "grace@example.com Asked, no answer yet" in text


def test_the_audit_log_is_filtered_by_the_url_and_shows_text(cast, settings_page):
    admin = visitor(cast.admin)
    admin.post(settings_page("/environment"), {"do": "rename", "name": HOSTILE})
    path = settings_page("/audit")
    page = admin.get(path, {"action": "environment.updated", "from": "2026-01-01"})
    assert HOSTILE in text_of(page)
    assert "<img src=x" not in page.content.decode()
    assert 'href="?targetId=' in page.content.decode()
    # A text has its lines, none of which looks like a field of the row.
    url = f"/api/v1/triggers/{cast.trigger_id}"
    cast.client(cast.admin).patch(url, {"prompt": "Look.\r\nrole: owner", "maxRetries": 2})
    changed = admin.get(path, {"action": "trigger.updated"}).content.decode()
    assert "→ Look.\n    role: owner\n" in changed
    assert "maxRetries: 3 → 2" in changed
    none = admin.get(path, {"action": "environment.updated", "to": "2026-01-01"})
    assert "No action matches" in text_of(none)
    wrong = admin.get(path, {"from": "yesterday"})
    assert wrong.status_code == 400
    assert "from" in text_of(wrong)


def test_an_environment_is_renamed_paused_resumed_and_deleted(cast, settings_page):
    owner, path = visitor(cast.owner), settings_page("/environment")
    assert owner.post(path, {"do": "rename", "name": ""}).status_code == 400
    pause = {"do": "pause", "pauseReason": "A move."}
    assert owner.post(path, pause)["Location"] == path
    attention = f"/console/environments/{cast.environment.id}/attention"
    assert "A move." in text_of(visitor(cast.viewer).get(attention))
    assert owner.post(path, {"do": "resume"})["Location"] == path
    assert Environment.objects.get(id=cast.environment.id).paused_at is None
    refused = owner.post(f"{path}/delete")
    assert refused.status_code == 409
    assert "trigger" in text_of(refused)
    assert visitor(cast.admin).post(f"{path}/delete").status_code == 403
    alone = UserFactory.create()
    client = visitor(alone)
    workspace = client.post("/console/workspaces/new", {"name": "Mine"})["Location"]
    opened = client.post(workspace, {"name": "try"})["Location"]
    assert client.post(f"{opened}/settings/environment/delete")["Location"] == "/console/"


def test_the_list_of_channels_shows_how_the_last_notices_went(cast, settings_page):
    works, broken = add_channel(cast, name="Works"), add_channel(cast, name="Broken")
    for channel, statuses in ((works, ("dead", "delivered", "delivered")), (broken, ("dead",))):
        for status in statuses:
            at = {"delivered_at": Now()} if status == "delivered" else {}
            Notice.objects.create(
                environment=cast.environment, channel=channel, body="{}", event="trigger_late.recovered",
                status=status, next_attempt_at=None, **at,
            )  # fmt: skip
    Channel.objects.filter(id=broken.id).update(failing_since=Now(), last_error="503")
    admin = visitor(cast.admin)
    page = admin.get(settings_page("/channels"))
    assert "Last 30 notices: 1 not delivered, 2 delivered" in text_of(page)
    text = text_of(page)
    assert text.index("Broken") < text.index("Works")
    shown = text_of(admin.get(f"/console/channels/{works.id}"))
    assert "Late: over" in shown
    assert "Nothing has arrived since" in text_of(admin.get(f"/console/channels/{broken.id}"))


def test_people_are_shown_with_what_they_did_last_and_from_whom_an_invitation_is(
    cast, settings_page
):
    prove(cast.admin)
    invite_for_test(cast.environment, cast.admin, "grace@example.com")
    cast.client(cast.operator).post(f"/api/v1/triggers/{cast.trigger_id}/run", {})
    text = text_of(visitor(cast.admin).get(settings_page()))
    assert "run created" in text
    assert "no action yet" in text
    assert f"grace@example.com Viewer now by {cast.admin.name}" in re.sub(
        r"\d+ m?s ago", "now", text
    )
    assert "expires in 6 d" in text
    seen_by_viewer = text_of(visitor(cast.viewer).get(settings_page()))
    assert "Last action" not in seen_by_viewer
    assert "run created" not in seen_by_viewer
