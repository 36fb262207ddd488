"""CSRF protection by origin."""

import pytest

from testing.world.cases import cases
from testing.world.cast import browser
from testing.world.undone import undone
from testing.world.users import PASSWORD, use_instant_passwords

PUBLIC = "https://api.pipedai.example"
ALLOWED = "https://dashboard.example"
REFUSED = {
    "error": "This origin may not call the API with a session cookie.",
    "code": "foreign_origin",
}

# (Origin, Sec-Fetch-Site) of a request to http://testserver → whether it passes.
ROWS = [
    # A request with neither header does not come from a browser.
    (None, None, True),
    # An own or an allowed origin passes, whatever Sec-Fetch-Site says.
    ("http://testserver", None, True),
    ("http://testserver", "same-origin", True),
    ("http://testserver", "cross-site", True),
    (PUBLIC, None, True),
    (ALLOWED, None, True),
    (ALLOWED, "cross-site", True),
    (ALLOWED, "same-site", True),
    # Any other origin is foreign, whatever Sec-Fetch-Site says. Scheme, name and port must all match.
    ("https://evil.example", None, False),
    ("https://evil.example", "same-origin", False),
    ("https://evil.example", "none", False),
    ("https://testserver", None, False),
    ("http://testserver:8000", None, False),
    ("http://sub.testserver", None, False),
    ("http://testserver.evil.example", None, False),
    ("http://api.pipedai.example", None, False),
    ("https://api.pipedai.example:444", None, False),
    ("https://sub.dashboard.example", None, False),
    ("http://dashboard.example", None, False),
    (f"{ALLOWED}/", None, False),
    (f"{ALLOWED}.evil.example", None, False),
    ("", None, False),
    ("garbage", None, False),
    # An opaque origin passes only as same-origin.
    ("null", None, False),
    ("null", "same-origin", True),
    ("null", "same-site", False),
    ("null", "cross-site", False),
    ("null", "none", False),
    # Without Origin, Sec-Fetch-Site decides.
    (None, "same-origin", True),
    (None, "none", True),
    (None, "same-site", False),
    (None, "cross-site", False),
]


@pytest.fixture(autouse=True)
def _origins(settings):
    use_instant_passwords(settings)
    settings.ALLOWED_HOSTS = ["testserver"]
    settings.PUBLIC_URL = PUBLIC
    settings.ALLOWED_ORIGINS = [ALLOWED]


def headers(origin, site):
    sent = {"HTTP_ORIGIN": origin, "HTTP_SEC_FETCH_SITE": site}
    return {name: value for name, value in sent.items() if value is not None}


@cases(("origin", "site", "passes"), ROWS)
def test_a_foreign_page_can_change_nothing_with_the_cookie(cast, origin, site, passes):
    response = cast.client(cast.owner).post(
        "/api/v1/workspaces", {"name": "new"}, **headers(origin, site)
    )
    assert response.status_code == (201 if passes else 403)
    if not passes:
        assert response.json() == REFUSED


@pytest.mark.parametrize("action", ["register", "login", "logout"])
@cases(
    ("origin", "site", "passes"),
    [row for row in ROWS if row[:2] in {(None, None), (ALLOWED, None), ("null", None)}]
    + [("https://evil.example", None, False), (None, "cross-site", False)],
)
def test_nor_begin_or_end_a_session(db, action, origin, site, passes):
    body = {"email": "ada@example.com", "password": PASSWORD}
    with undone():
        response = browser().post(
            f"/api/v1/auth/{action}", {} if action == "logout" else body, **headers(origin, site)
        )
    passed = {"register": 201, "login": 401, "logout": 204}[action]
    assert response.status_code == (passed if passes else 403)
    assert not response.cookies or passes


def test_reading_is_not_refused(cast):
    response = cast.client(cast.owner).get(
        "/api/v1/workspaces", **headers("https://evil.example", "cross-site")
    )
    assert response.status_code == 200
    assert "Access-Control-Allow-Origin" not in response


def test_a_bearer_token_is_exempt(cast):
    response = cast.key_client().post(
        f"/api/v1/triggers/{cast.trigger_id}/run",
        {},
        **headers("https://evil.example", "cross-site"),
    )
    assert response.status_code == 201


def test_a_worker_is_exempt(cast):
    response = cast.worker_client().post(
        f"/api/v1/workers/{cast.worker.worker_id}/runs/{cast.trigger_id}/claim",
        {},
        **headers("https://evil.example", "cross-site"),
    )
    assert response.status_code == 404


def test_the_method_cannot_be_overridden(cast):
    client = cast.client(cast.owner)
    key_url = f"/api/v1/environments/{cast.environment.id}/api-keys"
    for name in ("HTTP_X_HTTP_METHOD_OVERRIDE", "HTTP_X_METHOD_OVERRIDE", "HTTP_X_HTTP_METHOD"):
        assert client.get(key_url, **{name: "POST"}).status_code == 200
    assert client.get(f"{key_url}?_method=POST").status_code == 200
    assert client.post(key_url, {"_method": "GET"}).status_code == 400


def test_https_counts_as_the_scheme_where_the_request_came_by_it(cast):
    url = "/api/v1/workspaces"
    for origin, passes in [("https://testserver", True), ("http://testserver", False)]:
        response = cast.client(cast.owner).post(
            url, {"name": "new"}, secure=True, HTTP_ORIGIN=origin
        )
        assert (response.status_code == 201) == passes
