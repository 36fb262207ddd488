"""Each signal of a failed result leads to the right fault, and a transcript gathers the right facts."""

from __future__ import annotations

from typing import Any

import pytest

from pipedai_worker.executors.faults import judge
from pipedai_worker.executors.transcript import Transcript, is_success, text_of


def failed(**fields: Any) -> dict[str, Any]:
    return {"type": "result", "subtype": "success", "is_error": True, **fields}


@pytest.mark.parametrize(
    ("result", "api_error", "limit_reached", "fault_class"),
    [
        (failed(subtype="error_max_turns"), None, False, "client"),
        # The limit that ended the run decides, whatever error came before it.
        (failed(subtype="error_max_turns", api_error_status=529), "overloaded", True, "client"),
        (failed(subtype="error_max_budget_usd"), None, False, "client"),
        (failed(subtype="error_max_structured_output_retries"), None, False, "client"),
        (failed(subtype="error_during_execution"), None, False, "infra"),
        (failed(subtype="error_during_execution"), "invalid_request", False, "client"),
        (
            failed(subtype="error_during_execution", terminal_reason="blocking_limit"),
            None,
            False,
            "client",
        ),
        (failed(subtype="error_of_a_later_version"), None, False, "client"),
        (failed(), None, False, "client"),
        (failed(), None, True, "infra"),
        (failed(api_error_status=408), None, False, "infra"),
        (failed(api_error_status=429), None, False, "infra"),
        (failed(api_error_status=500), None, False, "infra"),
        (failed(api_error_status=401), None, False, "client"),
        (failed(api_error_status=413), "server_error", False, "client"),
        (failed(), "overloaded", False, "infra"),
        (failed(), "billing_error", False, "client"),
        (failed(), "rate_limit", False, "infra"),
        (failed(error={"type": "overloaded_error"}), None, False, "infra"),
        (failed(error={"type": "authentication_error"}), "overloaded", False, "client"),
        (failed(result="overloaded_error 529 rate limit"), None, False, "client"),
        ({"type": "result"}, None, False, "infra"),
        (failed(subtype=["x"], terminal_reason={}, error=[]), None, False, "infra"),
    ],
)
def test_a_failed_result_is_judged(
    result: dict[str, Any], api_error: str | None, limit_reached: bool, fault_class: str
) -> None:
    assert judge(result, api_error, limit_reached=limit_reached).fault_class == fault_class


@pytest.mark.parametrize(
    ("result", "success"),
    [
        ({"subtype": "success", "is_error": False}, True),
        ({"is_error": False}, True),
        ({"subtype": "success", "is_error": True}, False),
        ({"subtype": "success"}, False),
        ({"subtype": "error_max_turns", "is_error": False}, False),
        ({"subtype": 5, "is_error": False}, False),
    ],
)
def test_only_a_result_that_says_so_is_a_success(result: dict[str, Any], success: bool) -> None:
    assert is_success(result) is success


def transcript(*events: dict[str, Any]) -> Transcript:
    gathered = Transcript()
    for event in events:
        gathered.take(event)
    return gathered


def limit(status: str, name: str = "five_hour", **info: Any) -> dict[str, Any]:
    info = {"status": status, "rateLimitType": name, **info}
    return {"type": "rate_limit_event", "rate_limit_info": info}


def test_a_limit_counts_only_while_it_is_rejected() -> None:
    assert not transcript(limit("allowed"), limit("allowed_warning")).limit_reached
    assert transcript(limit("rejected")).limit_reached
    assert not transcript(limit("rejected"), limit("allowed")).limit_reached
    assert transcript(limit("rejected"), limit("allowed", "seven_day")).limit_reached
    assert not transcript(limit("rejected", overageStatus="allowed")).limit_reached


def test_the_last_reset_counts_and_may_come_in_milliseconds() -> None:
    gathered = transcript(
        limit("rejected", resetsAt=1_800_000_100),
        limit("rejected", "seven_day", resetsAt=1_800_000_500_000),
    )
    assert gathered.seconds_until_reset(1_800_000_000) == 500
    assert gathered.seconds_until_reset(1_900_000_000) == 0
    assert transcript(limit("rejected", resetsAt=1e300)).seconds_until_reset(0) == 31 * 86_400
    assert transcript(limit("rejected", resetsAt="soon")).seconds_until_reset(0) is None


def test_the_first_failed_result_decides_and_the_last_cost_counts() -> None:
    gathered = transcript(
        {"type": "result", "subtype": "success", "is_error": False, "total_cost_usd": 1},
        failed(total_cost_usd=2, num_turns=3),
        {"type": "result", "subtype": "success", "is_error": False, "total_cost_usd": 3.5},
    )
    assert gathered.result is not None
    assert gathered.result["is_error"] is True
    assert (gathered.cost_usd, gathered.num_turns) == (3.5, 3)


def test_the_model_is_the_one_that_answered_and_sub_agents_do_not_count() -> None:
    gathered = transcript(
        {"type": "system", "subtype": "init", "model": "asked"},
        {"type": "assistant", "message": {"model": "answered"}, "parent_tool_use_id": None},
        {"type": "assistant", "message": {"model": "helper"}, "parent_tool_use_id": "t1"},
        {"type": "assistant", "message": {"model": "<synthetic>"}, "error": "overloaded"},
        {"type": "assistant", "message": {"model": "x"}, "parent_tool_use_id": "t1", "error": "y"},
    )
    assert gathered.model == "answered"
    assert gathered.api_error == "overloaded"


def test_the_usage_of_a_message_that_comes_in_pieces_counts_once() -> None:
    piece = {"id": "m1", "usage": {"output_tokens": 5}}
    gathered = transcript(
        {"type": "assistant", "message": piece},
        {"type": "assistant", "message": {**piece, "usage": {"output_tokens": 9}}},
        {"type": "assistant", "message": {"id": "m2", "usage": {"output_tokens": 1}}},
    )
    assert gathered.tokens is not None
    assert gathered.tokens.output == 10


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"type": None},
        {"type": ["result"]},
        {"type": "assistant"},
        {"type": "assistant", "message": []},
        {"type": "assistant", "message": {"id": 5, "usage": [], "model": {}}},
        {"type": "rate_limit_event", "rate_limit_info": None},
        {"type": "rate_limit_event", "rate_limit_info": {"status": 5, "rateLimitType": []}},
        {"type": "system", "subtype": "init", "model": 5, "session_id": 7},
        {"type": "result", "total_cost_usd": -1, "num_turns": 1.5, "usage": {"input_tokens": "x"}},
        {"type": "result", "total_cost_usd": 10**400, "errors": [1, None], "result": 5},
        {"type": "error", "error": 5},
    ],
)
def test_events_of_a_wrong_shape_are_no_trouble(event: dict[str, Any]) -> None:
    gathered = transcript(event)
    assert gathered.cost_usd is None
    if gathered.result is not None:
        assert text_of(gathered.result) == ""
