"""The worker goes by the code of an error answer, and without one by the status."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from testing.world.cases import cases

from pipedai_worker.api import ApiError, NotOurApi, TokenRefused, read
from pipedai_worker.conformance.fake_api import FakeApi
from pipedai_worker.running.loop import Fatal

from .conftest import Workers


def error_of(status: int, code: str | None) -> ApiError:
    body: dict[str, Any] = {"error": "A sentence.", **({} if code is None else {"code": code})}
    answer = httpx.Response(status, json=body, request=httpx.Request("GET", "http://api.example/"))
    with pytest.raises(ApiError) as raised:
        read(answer)
    return raised.value


@cases("code", [None, "invalid_token", "token_expired", "newer_than_us"])
def test_a_401_means_a_dead_token(code: str | None) -> None:
    error = error_of(401, code)
    assert isinstance(error, TokenRefused)
    assert Fatal(error).token_is_dead


def test_a_401_of_an_api_that_got_no_token_leaves_the_token_alive() -> None:
    error = error_of(401, "unauthenticated")
    assert isinstance(error, TokenRefused)
    assert not Fatal(error).token_is_dead
    assert "a proxy may remove the Authorization header" in str(error)


def test_a_host_name_that_the_api_refuses_is_a_wrong_url() -> None:
    assert isinstance(error_of(400, "host_not_allowed"), NotOurApi)


def test_a_proxy_that_removes_the_token_ends_the_worker_with_a_sentence(
    api: FakeApi, workers: Workers
) -> None:
    api.fail(
        "claim-next", 401, body={"error": "Authentication is required.", "code": "unauthenticated"}
    )
    worker = workers.start()
    assert worker.wait() == 1
    assert "a proxy may remove the Authorization header" in worker.log
    assert "Register again" not in worker.log
