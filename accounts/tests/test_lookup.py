"""GET /users/lookup?email="""

import pytest

from testing.probes.audited import audited
from testing.probes.shapes import NOT_FOUND, invalid
from testing.world.cast import browser, session_cookie
from testing.world.users import UserFactory

URL = "/api/v1/users/lookup"

pytestmark = pytest.mark.django_db


@pytest.fixture
def client():
    return browser(session_cookie(UserFactory.create(email="bob@example.com")))


@pytest.fixture
def ada():
    return UserFactory.create(email="ada@example.com", name="Ada")


@pytest.mark.parametrize("spelling", ["ada@example.com", "ADA@Example.COM", " ada@example.com  "])
def test_it_answers_the_user_with_this_address(client, ada, spelling):
    response = client.get(URL, {"email": spelling})
    assert response.status_code == 200
    assert response.json() == {
        "user": {"id": str(ada.id), "email": "ada@example.com", "name": "Ada"}
    }


def test_oneself_is_found_too(client):
    assert client.get(URL, {"email": "bob@example.com"}).status_code == 200


@pytest.mark.parametrize(
    "other",
    [
        "ada@example.co",
        "da@example.com",
        "ada",
        "ada%",
        "a_a@example.com",
        "*",
        "ada@example.com,bob@example.com",
        "' OR 1=1 --",
        "x" * 3000,
        "adà@example.com",
    ],
)
def test_anything_but_an_exact_match_is_404(client, ada, other):
    response = client.get(URL, {"email": other})
    assert (response.status_code, response.json()) == (404, NOT_FOUND)


def test_a_deactivated_user_looks_missing(client):
    UserFactory.create(email="gone@example.com", is_active=False)
    missing, gone = (
        client.get(URL, {"email": f"{name}@example.com"}) for name in ("nobody", "gone")
    )
    assert (missing.status_code, missing.content) == (gone.status_code, gone.content)
    assert missing.status_code == 404


@pytest.mark.parametrize("query", ["", "?email=", "?mail=ada@example.com"])
def test_the_address_is_required(client, query):
    response = client.get(URL + query)
    assert response.status_code == 400
    assert response.json() == invalid({"email": ["This parameter is required."]})


@pytest.mark.parametrize("control", ["\0", "\n", "\x1f", "\x85"])
def test_a_control_character_is_a_field_error(client, ada, control):
    response = client.get(URL, {"email": f"ada@example.com{control}"})
    assert response.status_code == 400
    assert response.json() == invalid({"email": ["Must not hold control characters."]})


def test_it_is_not_audited(client, ada):
    with audited() as rows:
        client.get(URL, {"email": "ada@example.com"})
    assert rows == []
