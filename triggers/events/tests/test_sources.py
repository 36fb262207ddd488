"""Sources are made, shown, changed and deleted, and what does not fit their scheme is refused."""

from typing import Any

import pytest

from testing.probes.shapes import A_TIME, AN_ID, invalid
from testing.world.cases import cases
from testing.world.cast import Cast
from testing.world.events import SOURCE_SECRET, add_source, listen
from triggers.events.tests.test_receive import post, signed
from triggers.models import EventSource

BODY = {"name": "Repository", "scheme": "github", "secrets": [SOURCE_SECRET]}
HMAC = {"header": "X-Signature", "prefix": "sig ", "timestampHeader": "X-Time"}


@pytest.fixture
def create(cast: Cast) -> Any:
    url = f"/api/v1/environments/{cast.environment.id}/sources"
    return lambda **values: cast.client(cast.admin).post(url, {**BODY, **values})


def test_a_new_one_shows_all_but_its_secrets(cast: Cast, create: Any) -> None:
    made = create()
    assert made.status_code == 201
    source = made.json()
    assert source == {
        "id": AN_ID,
        "key": None,
        "managedBy": None,
        "environmentId": str(cast.environment.id),
        "name": "Repository",
        "scheme": "github",
        "hmac": None,
        "enabled": True,
        "url": f"/api/v1/hooks/{source['id']}",
        "lastEventAt": None,
        "typesSeen": [],
        "refused": [],
        "createdAt": A_TIME,
        "updatedAt": A_TIME,
        "recent": {name: [0] * 24 for name in ("taken", "started", "refused")},
    }
    shown = cast.client(cast.viewer).get(f"/api/v1/sources/{source['id']}")
    assert shown.json() == source


@cases(
    ("values", "field", "problem"),
    [
        ({"scheme": "magic"}, "scheme", '"magic" is not a valid choice.'),
        ({"secrets": []}, "secrets", "Ensure this field has at least 1 elements."),
        ({"secrets": ["short"]}, "secrets", "0: Ensure this field has at least 16 characters."),
        (
            {"secrets": [SOURCE_SECRET] * 3},
            "secrets",
            "Ensure this field has no more than 2 elements.",
        ),
        (
            {"scheme": "standard", "secrets": ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS-w"]},
            "secrets",
            "After whsec_ each must be base64.",
        ),
        (
            {"scheme": "bearer", "secrets": ["a-secret-with-é-in-it"]},
            "secrets",
            "They are sent in a header: visible ASCII characters, and blanks between them.",
        ),
        ({"hmac": HMAC}, "hmac", "A source of the scheme github has none."),
        ({"scheme": "hmac"}, "hmac", "A source of the scheme hmac needs it."),
        (
            {"scheme": "hmac", "hmac": {**HMAC, "header": "a b"}},
            "hmac",
            "header: This value does not match the required pattern.",
        ),
        (
            {"scheme": "hmac", "hmac": "x"},
            "hmac",
            "Invalid data. Expected a dictionary, but got str.",
        ),
        ({"scheme": "hmac", "hmac": {**HMAC, "digest": 1}}, "hmac", "digest: Unknown field."),
    ],
    undone=True,
)
def test_what_is_bad_is_refused(create: Any, values: Any, field: str, problem: str) -> None:
    refused = create(**values)
    assert refused.status_code == 400
    assert refused.json()["details"]["fieldErrors"][field] == [problem]


def test_its_scheme_stays_and_the_rest_may_change(cast: Cast) -> None:
    source_id = add_source(cast, "hmac", hmac=HMAC)
    client, url = cast.client(cast.admin), f"/api/v1/sources/{source_id}"
    refused = client.patch(url, {"scheme": "github"})
    assert refused.json() == invalid({"scheme": ["It can't be changed."]})
    changed = client.patch(url, {"name": "Scripts", "hmac": {"prefix": ""}, "enabled": False})
    told = changed.json()
    assert (told["name"], told["hmac"], told["enabled"]) == (
        "Scripts",
        {**HMAC, "prefix": ""},
        False,
    )
    assert client.patch(url, {"hmac": None}).json() == invalid(
        {"hmac": ["A source of the scheme hmac needs it."]}
    )


def test_both_secrets_hold_while_one_is_replaced(cast: Cast) -> None:
    source_id = add_source(cast)
    client, url = cast.client(cast.admin), f"/api/v1/sources/{source_id}"
    assert (
        client.patch(url, {"secrets": ["a-newer-secret-of-it", SOURCE_SECRET]}).status_code == 200
    )
    assert post(source_id, *signed("github", b"[1]")).status_code == 202
    assert client.patch(url, {"secrets": ["a-newer-secret-of-it"]}).status_code == 200
    assert post(source_id, *signed("github", b"[2]")).status_code == 401


def test_one_that_a_trigger_listens_to_stays_and_another_loses_its_secrets(cast: Cast) -> None:
    source_id = add_source(cast)
    heard = [listen(cast.trigger_id, source_id=source_id) for _ in range(2)]
    client, url = cast.client(cast.admin), f"/api/v1/sources/{source_id}"
    refused = client.delete(url)
    assert (refused.status_code, refused.json()["code"]) == (409, "has_children")
    assert refused.json()["error"] == "1 trigger still listens to the source."
    for listener in heard:
        listener.delete()
    assert client.delete(url).status_code == 204
    assert client.get(url).status_code == 404
    row = EventSource.objects.get(id=source_id)
    assert (row.secrets, row.secrets_key_id) == (None, None)


def test_an_environment_has_no_more_than_its_ceiling(create: Any, ceilings: dict[str, int]) -> None:
    ceilings["sources"] = 1
    assert create().status_code == 201
    refused = create()
    assert (refused.status_code, refused.json()["ceiling"]) == (409, "sources")
