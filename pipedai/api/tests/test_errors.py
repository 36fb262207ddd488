"""Errors from every part of the service have the same envelope."""

import json

import pytest
from django.core.exceptions import PermissionDenied
from django.http import Http404
from rest_framework import exceptions, serializers

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Conflict, Forbidden, Invalid, NotFound, Unauthenticated
from pipedai.api.exceptions import handle_exception
from pipedai.api.throttling import TooManyRequests
from pipedai.ids import current_request_id
from testing.probes.shapes import NOT_FOUND, invalid
from testing.world.cases import cases
from testing.world.cast import JSONClient, browser
from triggers import queries

ANY_ID = "01a20e5f-a31e-7453-b4da-bc1dd526bdec"


class TestAUrlThatIsNoRoute:
    @pytest.mark.parametrize(
        "path",
        [
            "/api/v1/",
            "/api/v1/nothing",
            "/api/v1/workspaces/",
            "/api/v1/auth/me/",
            "/api/v1/auth",
            "/api/v2/auth/me",
            "/api/v1//auth/me",
            "/api/v1/auth/me.json",
            "/api/v1/triggers/1",
            "/api/v1/triggers/garbage",
            f"/api/v1/triggers/{ANY_ID}0",
            f"/api/v1/triggers/{ANY_ID}/",
            f"/api/v1/triggers/{ANY_ID.replace('-', '')}",
            f"/api/v1/triggers/{ANY_ID}%00",
            "/api/v1/triggers/../workspaces",
            "/api/v1/caf%C3%A9",
        ],
    )
    def test_it_is_404_with_and_without_credentials(self, cast, path):
        for client in (browser(), cast.client(cast.owner), cast.key_client()):
            response = client.get(path)
            assert response.status_code == 404
            assert response["Content-Type"] == "application/json"
            assert response.json() == NOT_FOUND


class TestAMethodThatAUrlDoesNotHave:
    @pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"])
    def test_it_is_405_and_says_which_there_are(self, cast, method):
        response = cast.client(cast.owner).generic(method, "/api/v1/workspaces")
        assert response.status_code == 405
        assert response.json() == {
            "error": f'Method "{method}" not allowed.',
            "code": "method_not_allowed",
        }
        assert set(response["Allow"].split(", ")) == {"GET", "HEAD", "POST"}

    @cases(("method", "path"), [("GET", "auth/login"), ("OPTIONS", "workers/register")])
    def test_also_where_no_credentials_are_needed(self, method, path):
        response = JSONClient().generic(method, f"/api/v1/{path}")
        assert response.status_code == 405
        assert response["Allow"] == "POST"

    def test_head_is_a_get_without_a_body(self, cast):
        client = cast.client(cast.owner)
        head, get = (getattr(client, method)("/api/v1/workspaces") for method in ("head", "get"))
        assert head.status_code == 200
        assert head.headers == get.headers


class TestWhatIsNotJSON:
    @pytest.mark.parametrize("accept", ["text/html", "application/xml", "image/*", "garbage"])
    def test_asking_for_it_is_406(self, cast, accept):
        response = cast.client(cast.owner).get("/api/v1/workspaces", HTTP_ACCEPT=accept)
        assert response.status_code == 406
        assert response.json() == {
            "error": "Only application/json can be answered.",
            "code": "not_acceptable",
        }

    @pytest.mark.parametrize(
        "accept", ["*/*", "application/*", "application/json", "text/html, */*;q=0.1"]
    )
    def test_whoever_can_take_json_gets_it(self, cast, accept):
        response = cast.client(cast.owner).get("/api/v1/workspaces", HTTP_ACCEPT=accept)
        assert response.status_code == 200
        assert response["Content-Type"] == "application/json"

    def test_a_format_in_the_query_is_no_parameter_of_ours(self, cast):
        assert cast.client(cast.owner).get("/api/v1/workspaces?format=xml").status_code == 200


class TestACrash:
    def test_it_is_500_with_the_request_id_and_no_story(self, cast, monkeypatch):
        def crash(*_args):
            raise RuntimeError("the story")

        monkeypatch.setattr(queries, "triggers", crash)
        client = cast.client(cast.owner)
        client.raise_request_exception = False
        token = current_request_id.set("req-1")
        response = client.get(f"/api/v1/environments/{cast.environment.id}/triggers")
        current_request_id.reset(token)
        assert response.status_code == 500
        assert response.json() == {
            "error": "Internal server error",
            "code": "internal_error",
            "requestId": "req-1",
        }


def test_a_host_that_is_not_ours_is_400_where_it_matters(cast):
    response = cast.client(cast.owner).post(
        "/api/v1/workspaces",
        {"name": "x"},
        HTTP_HOST="evil.example",
        HTTP_ORIGIN="http://evil.example",
    )
    assert response.status_code == 400
    assert response.json() == {"error": "Bad request", "code": "host_not_allowed"}


CHALLENGE = {"WWW-Authenticate": 'Bearer realm="pipedai"'}


@cases(
    ("error", "status", "body", "headers"),
    [
        (NotFound(), 404, NOT_FOUND, {}),
        (Http404("what it was"), 404, NOT_FOUND, {}),
        (
            Conflict("No.", code=ErrorCode.NOT_DUE, status="queued"),
            409,
            {"error": "No.", "code": "not_due", "status": "queued"},
            {},
        ),
        (Forbidden("No."), 403, {"error": "No.", "code": "forbidden"}, {}),
        (PermissionDenied("why"), 403, {"error": "You may not do this.", "code": "forbidden"}, {}),
        (
            Unauthenticated("No.", code=ErrorCode.INVALID_TOKEN),
            401,
            {"error": "No.", "code": "invalid_token"},
            CHALLENGE,
        ),
        (
            exceptions.NotAuthenticated(),
            401,
            {"error": "Authentication is required.", "code": "unauthenticated"},
            CHALLENGE,
        ),
        (
            TooManyRequests("Later.", headers={"Retry-After": "2"}),
            429,
            {"error": "Later.", "code": "throttled"},
            {"Retry-After": "2"},
        ),
        (
            exceptions.ParseError("It is bad."),
            400,
            {"error": "It is bad.", "code": "malformed_body"},
            {},
        ),
        (
            Invalid({"a.b": ["Bad."]}, form=["Worse."]),
            400,
            invalid({"a.b": ["Bad."]}, "Worse."),
            {},
        ),
        (Invalid(form=["Worse."]), 400, invalid(None, "Worse."), {}),
    ],
)
def test_each_error_has_its_status_its_body_and_its_headers(error, status, body, headers):
    response = handle_exception(error, {})
    assert response is not None
    assert response.status_code == status
    assert json.loads(json.dumps(response.data)) == body
    assert {**response.headers, "Content-Type": None} == {**headers, "Content-Type": None}


@cases(
    ("detail", "body"),
    [
        ({"a": ["One.", "Two."]}, invalid({"a": ["One.", "Two."]})),
        (
            {"a": {"b": ["One."], "c": {"d": ["Two."]}}},
            invalid(
                {"a": ["b: One.", "c.d: Two."], "a.b": ["One."], "a.c.d": ["Two."]},
            ),
        ),
        ({"a": {"non_field_errors": ["One."]}}, invalid({"a": ["One."]})),
        ({"non_field_errors": ["One."], "a": ["Two."]}, invalid({"a": ["Two."]}, "One.")),
        (["One.", "Two."], invalid(None, "One.", "Two.")),
        ("One.", invalid(None, "One.")),
    ],
)
def test_nested_errors_get_dotted_names(detail, body):
    response = handle_exception(serializers.ValidationError(detail), {})
    assert response is not None
    assert response.data == body


def test_what_is_no_error_of_the_api_is_left_to_crash():
    assert handle_exception(RuntimeError("a secret"), {}) is None
