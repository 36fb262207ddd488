"""Whatever a page offers to somebody works for them: each link opens, and no button is refused for their role. What
people called things is text on every page.
"""

import re
from html import unescape
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.db import transaction
from django.test import Client
from django.urls import get_resolver, reverse

from accounts.models import User
from console.tests.test_screens import HOSTILE
from console.tests.visits import text_of, visitor
from console.urls import urlpatterns
from notices.models import Channel, Incident
from triggers.models import Budget, Trigger
from workers.models import Pool, Worker
from workspaces.models import ApiKey, Environment, Workspace
from workspaces.roles import Role

# The names that people chose for what there is. They are text wherever a page shows them.
NAMED = (
    (Workspace, "name"),
    (Environment, "name"),
    (User, "name"),
    (ApiKey, "name"),
    (Trigger, "name"),
    (Worker, "label"),
    (Pool, "name"),
    (Budget, "name"),
    (Channel, "name"),
    (Incident, "subject_name"),
)
# What pages offer to everybody, and what would end the visit or the crawl of all cursors.
_LEFT_OUT = re.compile(r"/console/(sign-out|account/sessions)|cursor=|before=")
_ID = re.compile("[0-9a-f]{8}-[0-9a-f-]{27}")
_FORM = re.compile(r"<form([^>]*)>(.*?)</form>", re.DOTALL)
_ACTION = re.compile(r'action="([^"]*)"')
_FIELD = re.compile(r'<(?:input|button)[^>]*?name="([^"]+)"[^>]*?value="([^"]*)"')


def offers(url, page):
    """Returns the links of a page of the console, and its forms as their URLs with the fields that are filled in."""
    text = page.content.decode()
    links = {unescape(each) for each in re.findall(r'href="([^"]+)"', text)}
    links = {urlsplit(url).path + each if each.startswith("?") else each for each in links}
    forms = {
        (
            unescape(named[1]) if (named := _ACTION.search(tag)) else url,
            tuple((name, unescape(value)) for name, value in _FIELD.findall(inner)),
        )
        for tag, inner in _FORM.findall(text)
        if 'method="post"' in tag and "<button" in inner
    }
    return links, forms


def is_followed(url):
    return url.startswith("/console/") and not _LEFT_OUT.search(url)


def opening(url):
    """Returns what is opened once: a page of each row, but the same filter of a list only for one of all rows."""
    address, _, _ = url.partition("#")
    return _ID.sub("", address) if "?" in address else address


# An owner may do all that an admin may, and more, so a page has nothing to hide from them.
@pytest.mark.parametrize(
    "role",
    [pytest.param(each, marks=pytest.mark.long) if each is Role.OWNER else each for each in Role],
)
def test_nothing_that_a_page_offers_is_refused_for_the_role(role, stage):
    client = visitor(getattr(stage.cast, role.value))
    for model, field in NAMED:
        model.objects.update(**{field: HOSTILE})
    # The incident of the stage is about a trigger that never was.
    gone = str(Incident.objects.get(id=stage.ids["incident_id"]).subject_id)
    to_open = {reverse("console:environment", args=[stage.ids["environment_id"]])}
    opened, sent = set(), set()
    while to_open:
        url = to_open.pop()
        if opening(url) in opened:
            continue
        opened.add(opening(url))
        page = client.get(url)
        assert page.status_code in {200, 303}, (url, text_of(page))
        assert "<img src=x" not in page.content.decode(), url
        assert 'href="javascript:' not in page.content.decode(), url
        links, forms = offers(url, page)
        links |= {page["Location"]} if page.status_code == 303 else set()
        new = {each for each in links if is_followed(each) and gone not in each}
        to_open |= {each for each in new if opening(each) not in opened}
        for action, fields in forms:
            if (
                not is_followed(action)
                or gone in action
                or (action, *(name for name, _ in fields)) in sent
            ):
                continue
            sent.add((action, *(name for name, _ in fields)))
            with transaction.atomic():
                answer = client.post(action, dict(fields))
                transaction.set_rollback(True)
            assert answer.status_code in {200, 303, 400, 409}, (url, action, text_of(answer))
    assert any(f"/triggers/{stage.ids['trigger_id']}" in each for each in opened)
    is_sent = any(each[0].endswith("/run") for each in sent)
    assert is_sent == (role is not Role.VIEWER)


def test_no_page_takes_a_form_of_another_site(stage):
    foreign = Client(headers={"origin": "https://evil.example", "sec-fetch-site": "cross-site"})
    foreign.cookies = visitor(stage.cast.owner).cookies
    ids = {**stage.ids, "run_id": stage.runs["ended"], "entry_id": stage.ids["enrollment_id"]}
    names: Any = get_resolver("console.urls").reverse_dict
    paths = [
        reverse(f"console:{name}", kwargs={each: ids[each] for each in possible[0][1]})
        for name, (possible, *_) in names.items()
        if isinstance(name, str)
    ]
    assert len(paths) >= len(urlpatterns)
    refused = {path: foreign.post(path).status_code for path in paths}
    assert set(refused.values()) == {403}, refused
