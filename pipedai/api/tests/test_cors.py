"""Only the allowed origins may make CORS requests with credentials."""

import pytest

from testing.world.cast import JSONClient

ALLOWED = "https://dashboard.example"
URL = "/api/v1/workspaces"


@pytest.fixture(autouse=True)
def _allowed(settings):
    settings.CORS_ALLOWED_ORIGINS = [ALLOWED]


def preflight(origin, url=URL, method="POST"):
    return JSONClient().options(
        url,
        HTTP_ORIGIN=origin,
        HTTP_ACCESS_CONTROL_REQUEST_METHOD=method,
        HTTP_ACCESS_CONTROL_REQUEST_HEADERS="content-type, idempotency-key",
    )


def test_an_allowed_origin_may_send_the_cookie_and_read_the_answer(cast):
    response = cast.client(cast.owner).get(URL, HTTP_ORIGIN=ALLOWED)
    assert response["Access-Control-Allow-Origin"] == ALLOWED
    assert response["Access-Control-Allow-Credentials"] == "true"
    assert "origin" in response["Vary"].lower()
    assert {
        name.strip() for name in response["Access-Control-Expose-Headers"].lower().split(",")
    } == {
        "idempotent-replayed",
        "ratelimit",
        "ratelimit-policy",
        "retry-after",
        "x-request-id",
    }


def test_errors_can_be_read_too():
    response = JSONClient().get("/api/v1/nothing", HTTP_ORIGIN=ALLOWED)
    assert response.status_code == 404
    assert response["Access-Control-Allow-Origin"] == ALLOWED


def test_a_preflight_tells_what_may_be_sent():
    response = preflight(ALLOWED)
    assert response.status_code == 200
    assert response["Access-Control-Allow-Origin"] == ALLOWED
    assert response["Access-Control-Allow-Credentials"] == "true"
    assert {"GET", "POST", "PUT", "PATCH", "DELETE"} <= set(
        response["Access-Control-Allow-Methods"].replace(" ", "").split(",")
    )
    assert {"content-type", "idempotency-key"} <= set(
        response["Access-Control-Allow-Headers"].replace(" ", "").split(",")
    )


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "*", f"{ALLOWED}.evil.example", "http://testserver"]
)
def test_any_other_origin_is_told_nothing(cast, origin):
    for response in (
        preflight(origin),
        cast.client(cast.owner).get(URL, HTTP_ORIGIN=origin),
    ):
        assert "Access-Control-Allow-Origin" not in response
        assert "Access-Control-Allow-Credentials" not in response


def test_nothing_is_ever_open_to_all(cast):
    for response in (
        preflight(ALLOWED),
        cast.client(cast.owner).get(URL, HTTP_ORIGIN=ALLOWED),
        JSONClient().get(URL),
    ):
        assert response.get("Access-Control-Allow-Origin") != "*"


def test_nothing_outside_the_api_is_shared():
    assert "Access-Control-Allow-Origin" not in preflight(ALLOWED, url="/elsewhere")
