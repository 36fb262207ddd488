"""The watch over the error answers of all tests finds one without a code, and a code that no test brings about."""

from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from pipedai.api.error_codes import ErrorCode, code_of_status
from testing.probes.error_codes import (
    CODES,
    ErrorCodes,
    hearing_errors,
    is_whole_suite,
    statuses_by_code,
)
from testing.world.cases import cases
from testing.world.cast import JSONClient

OURS = {"X-Request-Id": "1", "Content-Security-Policy": "default-src 'none'"}
JSON = {"content-type": "application/json"}


@pytest.fixture
def codes():
    """Returns a watch of this test's own, whose findings fail no test."""
    return ErrorCodes(statuses_by_code())


class TestAnAnswer:
    @pytest.mark.parametrize(
        ("status", "body"),
        [
            (404, b'{"error": "Not found"}'),
            (404, b'{"error": "Not found", "code": "no_such_code"}'),
            (409, b'{"error": "Not found", "code": "not_found"}'),
            (404, b"<p>Not found</p>"),
            (404, b"[]"),
            (404, b""),
        ],
        ids=["none", "unlisted", "of-another-status", "html", "list", "empty"],
    )
    def test_without_a_code_of_its_status_is_a_fault(self, codes, status, body):
        codes.look_at("/api/v1/x", status, {}, body)
        assert len(codes.faults_since_last()) == 1
        assert codes.faults_since_last() == []
        assert not codes.seen

    def test_with_one_is_noted(self, codes):
        codes.look_at("/metrics", 404, JSON, b'{"error": "Not found", "code": "not_found"}')
        assert codes.seen == {"not_found"}
        assert codes.missing() == sorted(set(ErrorCode) - {"not_found"})

    def test_that_is_a_page_or_a_success_is_ignored(self, codes):
        codes.look_at("/admin/", 404, {"content-type": "text/html"}, b"<p>Not found</p>")
        codes.look_at("/api/v1/x", 200, JSON, b"{}")
        assert not codes.faults


class TestHearing:
    def test_the_test_client_is_heard(self, codes):
        with hearing_errors(codes):
            JSONClient().get("/api/v1/nothing")
        assert codes.seen == {"not_found"}

    @pytest.mark.parametrize(("headers", "faults"), [(OURS, 1), ({}, 0)])
    def test_httpx_is_heard_when_the_service_answers(self, codes, headers, faults):
        def answer(_request: httpx.Request) -> httpx.Response:
            return httpx.Response(400, json={"error": "Bad"}, headers=headers)

        with hearing_errors(codes), httpx.Client(transport=httpx.MockTransport(answer)) as client:
            client.get("http://localhost/api/v1/x")
        assert len(codes.faults) == faults
        # The watch over this test has heard the same.
        assert len(CODES.faults_since_last()) == faults


@cases(
    ("chosen", "whole"),
    [({}, True), ({"keyword": "claim"}, False), ({"lf": True}, False), ({"maxfail": 1}, False)],
)
def test_only_a_run_of_all_tests_must_bring_about_every_code(chosen, whole):
    config: Any = SimpleNamespace(
        args_source=pytest.Config.ArgsSource.TESTPATHS, option=SimpleNamespace(**chosen)
    )
    assert is_whole_suite(config) is whole
    config.args_source = pytest.Config.ArgsSource.ARGS
    assert not is_whole_suite(config)


@cases("status", [400, 401, 404, 413, 418, 429, 500, 501, 502, 503])
def test_a_status_alone_gives_a_code_of_it_or_a_general_one(status):
    code = code_of_status(status)
    assert status in statuses_by_code()[code] or code in {"malformed_request", "internal_error"}
