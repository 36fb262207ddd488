"""Nobody gets mail who has not agreed, nobody gets more than twenty an hour, and everybody can end it."""

import json
import re
from dataclasses import replace
from datetime import timedelta

import httpx
import pytest
from django.db.models.functions import Now
from django.test import Client

from accounts.models import User
from notices.channels.consent import unsubscribe_headers
from notices.channels.queueing import MAX_AN_HOUR
from notices.channels.services import CHANNELS
from notices.channels.tests.conftest import add_incidents, send_due, tell
from notices.channels.tests.test_limits import NOON, minutes
from notices.models import AskedAddress, Channel, Notice
from pipedai.asgi import application
from pipedai.events import Actor
from pipedai.ids import new_id
from pipedai.server.request_scope import content_policy
from pipedai.server.tests.asgi_exchange import Exchange, http_scope
from pipedai.sql import execute
from testing.probes.plans import explained
from testing.processes.racing import accepted, at_once
from testing.world.channels import add_channel
from testing.world.mails import prove
from testing.world.users import UserFactory
from workspaces.services import create_environment

HOUR = timedelta(hours=1)


@pytest.fixture
def ada(cast):
    """A confirmed user who has nothing to do with the cast."""
    user = UserFactory.create()
    prove(user, cast.owner, cast.admin)
    user.refresh_from_db()
    cast.owner.refresh_from_db()
    return user


def members(cast):
    return f"/api/v1/environments/{cast.environment.id}/members"


def add_member(cast, user):
    answer = cast.client(cast.owner).post(members(cast), {"email": user.email, "role": "viewer"})
    assert answer.status_code == 201


def name(cast, *emails, by=None, environment=None, count=1):
    """Makes channels of mail to these addresses."""
    for n in range(count):
        CHANNELS.create(
            environment_id=(environment or cast.environment).id,
            actor=Actor("user", (by or cast.owner).id),
            values={"name": f"Mail {n}", "kind": "email", "emails": list(emails)},
        )


def staging(cast, called="staging"):
    """Makes another environment of the owner."""
    return create_environment(
        workspace_id=cast.workspace.id,
        name=called,
        user_id=cast.owner.id,
        actor=Actor("user", cast.owner.id),
    )


def standing(cast, email):
    channel = Channel.objects.filter(emails__contains=[email]).latest("id")
    shown = cast.client(cast.owner).get(f"/api/v1/channels/{channel.id}").json()["recipients"]
    return next(each["standing"] for each in shown if each["email"] == email)


def mails_to(mail_server, user):
    return [mail for mail in mail_server.received if mail.recipients == [user.email]]


def subjects(mail_server, user):
    return [mail.message["Subject"].partition(" ")[0] for mail in mails_to(mail_server, user)]


def link_in(mail):
    return mail.part("plain").partition("#token=")[2].split()[0]


def stop_url(mail):
    assert mail.message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    header = mail.message["List-Unsubscribe"].strip()
    (url,) = re.findall("^<https://pipedai.example(/.+)>$", header)
    return url


@pytest.fixture(autouse=True)
def _public_url(settings):
    settings.PUBLIC_URL = "https://pipedai.example"
    settings.ALLOWED_HOSTS = ["*"]


def answer(which, token, **more):
    said = Client().post(
        f"/api/v1/addresses/{which}",
        json.dumps({"token": token, **more}),
        content_type="application/json",
    )
    return said.status_code


@pytest.mark.parametrize("first", ["member", "channels"])
def test_whom_a_stranger_adds_is_asked_once_and_gets_nothing_else(
    cast, ada, mail_server, open_incidents, first
):
    if first == "member":
        add_member(cast, ada)
    name(cast, ada.email, count=9)
    if first == "channels":
        add_member(cast, ada)
    open_incidents(3)
    send_due()
    (question,) = mails_to(mail_server, ada)
    assert question.message["Subject"].startswith("Do you want notices of")
    assert standing(cast, ada.email) == "asked"
    stop_url(question)
    assert answer("confirm", link_in(question)) == 204
    open_incidents(1)
    send_due()
    assert len(mails_to(mail_server, ada)) == 10


def test_who_leaves_gets_nothing_when_added_again_until_they_agree(
    cast, ada, mail_server, open_incidents
):
    add_member(cast, ada)
    name(cast, ada.email)
    send_due()
    token = link_in(mails_to(mail_server, ada)[0])
    assert answer("confirm", token) == 204
    open_incidents(1)
    assert cast.client(ada).delete(f"{members(cast)}/{ada.id}").status_code == 204
    add_member(cast, ada)
    name(cast, ada.email)
    open_incidents(1)
    send_due()
    assert subjects(mail_server, ada) == ["Do"]
    assert standing(cast, ada.email) == "refused"
    assert answer("confirm", token) == 204
    open_incidents(1)
    send_due()
    assert subjects(mail_server, ada) == ["Do", "Trigger", "Trigger"]


def test_who_left_before_anybody_named_them_is_not_even_asked(
    cast, ada, mail_server, open_incidents
):
    add_member(cast, ada)
    cast.client(ada).delete(f"{members(cast)}/{ada.id}")
    add_member(cast, ada)
    name(cast, ada.email)
    open_incidents(1)
    send_due()
    assert mails_to(mail_server, ada) == []


def test_who_is_removed_gets_nothing_and_lets_themselves_in_by_no_old_link(
    cast, ada, mail_server, open_incidents
):
    add_member(cast, ada)
    name(cast, ada.email)
    send_due()
    token = link_in(mails_to(mail_server, ada)[0])
    assert answer("confirm", token) == 204
    assert cast.client(cast.owner).delete(f"{members(cast)}/{ada.id}").status_code == 204
    assert answer("confirm", token) == 409
    open_incidents(1)
    send_due()
    assert subjects(mail_server, ada) == ["Do"]


def test_who_makes_an_environment_or_names_their_own_address_has_agreed(cast, ada, mail_server):
    add_member(cast, ada)
    cast.environment.memberships.filter(user=ada).update(role="admin")
    made = staging(cast)
    assert Channel.objects.get(environment=made).emails == [cast.owner.email]
    assert standing(cast, cast.owner.email) == "member"
    name(cast, cast.owner.email, ada.email, by=ada)
    assert [standing(cast, user.email) for user in (ada, cast.owner)] == ["member", "asked"]
    # Naming it again is the later answer.
    cast.client(ada).delete(f"{members(cast)}/{ada.id}")
    add_member(cast, ada)
    cast.environment.memberships.filter(user=ada).update(role="admin")
    assert standing(cast, ada.email) == "refused"
    name(cast, ada.email, by=ada)
    assert standing(cast, ada.email) == "member"


def test_who_has_not_proved_their_address_ends_no_refusal_by_naming_it(cast, ada, mail_server):
    add_member(cast, ada)
    name(cast, ada.email)
    AskedAddress.objects.update(refused_at=Now())
    cast.environment.memberships.filter(user=ada).update(role="admin")
    User.objects.filter(id=ada.id).update(email_verified_at=None)
    name(cast, ada.email, by=ada)
    assert standing(cast, ada.email) == "refused"


def test_a_member_who_was_named_before_members_were_asked_still_gets_mail_with_a_link(
    cast, ada, mail_server, open_incidents
):
    add_member(cast, ada)
    name(cast, ada.email)
    AskedAddress.objects.all().delete()
    Notice.objects.all().delete()
    open_incidents(1)
    send_due()
    (mail,) = mails_to(mail_server, ada)
    assert Client().post(stop_url(mail)).status_code == 200
    assert standing(cast, ada.email) == "refused"


def test_one_click_ends_the_notices_of_the_environment_without_a_login(
    cast, ada, mail_server, open_incidents
):
    other = staging(cast)
    for environment in (cast.environment, other):
        name(cast, ada.email, environment=environment)
    send_due()
    for question in mails_to(mail_server, ada):
        assert answer("confirm", link_in(question)) == 204
    open_incidents(1)
    send_due()
    mail = mails_to(mail_server, ada)[-1]
    url, client = stop_url(mail), Client(enforce_csrf_checks=True)
    page = client.get(url)
    assert (page.status_code, "One-Click" in page.content.decode()) == (200, True)
    assert page["Referrer-Policy"] == "no-referrer"
    assert "form-action 'self'" in content_policy("/account/notices/stop")
    assert standing(cast, ada.email) == "confirmed"
    assert ada.email not in url
    for _ in range(2):
        posted = client.post(
            url, "List-Unsubscribe=One-Click", content_type="application/x-www-form-urlencoded"
        )
        assert (posted.status_code, posted.cookies) == (200, {})
    rows = AskedAddress.objects.order_by("environment__name")
    assert [
        (row.environment.name, row.refused_at is None) for row in rows.filter(address=ada.email)
    ] == [
        ("production", False),
        ("staging", True),
    ]
    open_incidents(1)
    send_due()
    assert len(mails_to(mail_server, ada)) == 3
    # This token went to servers in a URL. It permits nothing else.
    token = url.partition("token=")[2]
    assert [answer("confirm", token), answer("refuse", token)] == [409, 409]
    assert client.post(url[:-4] + "AAAA").status_code == 409
    assert client.post("/account/notices/stop").status_code == 409


def test_the_page_refuses_one_environment_or_all(cast, ada, mail_server):
    other = staging(cast)
    for environment in (cast.environment, other):
        name(cast, ada.email, environment=environment)
    send_due()
    first, second = (link_in(mail) for mail in mails_to(mail_server, ada))
    assert [answer("confirm", first), answer("confirm", second)] == [204, 204]
    assert answer("refuse", first, everywhere=False) == 204
    refused = AskedAddress.objects.filter(address=ada.email, refused_at__isnull=False)
    assert refused.count() == 1
    assert answer("refuse", second) == 204
    assert refused.count() == 2
    # Agreeing for one environment does not bring back the other.
    assert answer("confirm", first) == 204
    assert refused.count() == 1


def agreed(*pairs):
    for environment, address in pairs:
        AskedAddress.objects.create(
            environment=environment, address=address, asked_by=new_id(), confirmed_at=NOON
        )


def most_within_an_hour(address):
    rows = Notice.objects.filter(address=address).exclude(status="digested")
    times = list(rows.values_list("send_at", flat=True))
    return max(sum(end - HOUR < each <= end for each in times) for end in times)


def test_an_address_gets_twenty_mails_an_hour_over_all_channels_and_nothing_is_lost(
    cast, ada, mail_server, open_incidents
):
    agreed((cast.environment, ada.email))
    name(cast, ada.email, count=25)
    open_incidents(2, now=NOON)
    open_incidents(1, now=minutes(30))
    assert most_within_an_hour(ada.email) == MAX_AN_HOUR
    send_due(minutes(59))
    assert len(mails_to(mail_server, ada)) == 20
    for hour in range(1, 3):
        send_due(minutes(60 * hour))
        open_incidents(1, now=minutes(60 * hour + 30))
    assert most_within_an_hour(ada.email) == MAX_AN_HOUR
    send_due(minutes(60 * 24))
    counts = [
        int(mail.message["Subject"].split()[0]) if "held back" in mail.message["Subject"] else 1
        for mail in mails_to(mail_server, ada)
    ]
    assert sum(counts) == 25 * (3 + 2)


def test_environments_that_tell_one_address_at_once_stay_within_its_limit(committed_cast):
    cast, environments = committed_cast, [committed_cast.environment]
    add_channel(cast, "email")
    environments += [staging(cast, f"e{n}") for n in range(3)]
    agreed(*((each, "ops@example.com") for each in environments))
    Channel.objects.update(emails=["ops@example.com"])

    for environment in environments[1:]:
        name(cast, "ops@example.com", environment=environment)
    places = [replace(cast, environment=environment) for environment in environments]
    ids = [add_incidents(place, 12) for place in places]
    accepted(at_once(*(lambda n=n: tell(places[n], ids[n], now=NOON) for n in range(len(places)))))
    assert most_within_an_hour("ops@example.com") == MAX_AN_HOUR
    told = Notice.objects.exclude(event="channel.digest")
    assert told.count() == 48
    assert told.filter(status="digested").count() >= 28


def test_the_room_of_an_address_is_read_from_few_rows(cast, ada, open_incidents):
    agreed((cast.environment, ada.email))
    name(cast, ada.email)
    channel = Channel.objects.get()
    Notice.objects.bulk_create(
        Notice(
            environment=cast.environment,
            channel=channel,
            host="@example.com",
            event="trigger_failing",
            tells_results=n > 40,
            address=ada.email if n % 2 else f"a{n}@example.com",
            body="{}",
            send_at=NOON - timedelta(minutes=n),
            status="delivered",
            next_attempt_at=None,
            delivered_at=NOON,
        )
        for n in range(2_000)
    )
    execute("ANALYZE notice", {})
    with explained("SELECT k.channel_id, k.address, k.tells_results") as plans:
        open_incidents(1, now=NOON)
    assert MAX_AN_HOUR <= plans.rows_read("notice") <= MAX_AN_HOUR + 1


@pytest.mark.anyio
async def test_a_mail_providers_post_in_either_encoding_reaches_the_served_application(
    committed_cast, caplog
):
    caplog.set_level("INFO")
    row = await AskedAddress.objects.acreate(
        environment=committed_cast.environment, address="ops@example.com", asked_by=new_id()
    )
    url = httpx.URL(unsubscribe_headers(row.id)["List-Unsubscribe"].strip("<>"))
    as_form = httpx.Request("POST", url, data={"List-Unsubscribe": "One-Click"})
    as_parts = httpx.Request("POST", url, files={"List-Unsubscribe": (None, "One-Click")})
    for request in (as_form, as_parts):
        query, headers = url.query.decode(), dict(request.headers)
        scope = http_scope("POST", url.path, query=query, headers=headers)
        exchange = await Exchange(scope, [request.read()]).run(application)
        assert exchange.status == 200
        await row.arefresh_from_db()
        assert row.refused_at is not None
        await AskedAddress.objects.aupdate(refused_at=None)
    assert url.path in caplog.text
    assert url.params["token"] not in caplog.text
