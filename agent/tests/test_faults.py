"""Each signal of a failed result leads to the right fault, and a transcript gathers the right facts."""

from __future__ import annotations

from typing import Any

from testing.world.cases import cases

from pipedai_worker.executors.watch import Transcript, flaw, is_success, judge, text_of
from pipedai_worker.running.outcome import Tokens, UsageLimit


def failed(**fields: Any) -> dict[str, Any]:
    return {"type": "result", "subtype": "success", "is_error": True, **fields}


@cases(
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


@cases(
    "named",
    [{"api_error_status": 10**4000}, {"api_error_type": "x" * 4000}, {"subtype": "x" * 4000}],
)
def test_no_sentence_is_as_long_as_a_number_or_word_that_it_names(named: dict[str, Any]) -> None:
    assert len(judge(failed(**named), None, limit_reached=False).sentence) < 300


@cases(
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
    assert gathered.usage_limit(1_800_000_000) == UsageLimit(1_800_000_500, "seven_day")
    assert gathered.usage_limit(1_900_000_000) == UsageLimit(1_900_000_000, "seven_day")
    endless = transcript(limit("rejected", resetsAt=1e300)).usage_limit(0)
    assert endless == UsageLimit(31 * 86_400, "five_hour")
    nameless = transcript(limit("rejected", rateLimitType=None, resetsAt=5)).usage_limit(0)
    assert nameless == UsageLimit(5, "unknown")
    assert transcript(limit("rejected", resetsAt="soon")).usage_limit(0) is None


def test_the_last_result_and_the_last_cost_count() -> None:
    gathered = transcript(
        failed(total_cost_usd=2, num_turns=3),
        {"type": "result", "subtype": "success", "is_error": False, "total_cost_usd": 3.5},
    )
    assert gathered.result is not None
    assert gathered.result["is_error"] is False
    assert (gathered.cost_usd, gathered.num_turns) == (3.5, 3)


def test_a_resumed_session_tells_what_it_has_cost_since_then() -> None:
    def told(cost: float, tokens: int) -> dict[str, Any]:
        return {"costUSD": cost, "inputTokens": tokens}

    gathered = transcript(
        # The session's earlier attempts are in the totals alone.
        failed(
            total_cost_usd=10,
            modelUsage={"a": told(10, 1000)},
            model_usage_since_last_result={"a": told(1, 5), "b": told(0.5, 1)},
        ),
        failed(total_cost_usd=12, model_usage_since_last_result={"a": told(2, 10)}),
        failed(total_cost_usd=12, model_usage_since_last_result={}),
    )
    assert gathered.cost_usd == 3.5
    assert gathered.tokens == Tokens(input=16)


def test_a_limit_is_also_read_from_the_message_that_tells_of_it() -> None:
    params: Any
    info = limit("rejected", "seven_day", resetsAt=1_800_000_100)["rate_limit_info"]
    message = {"type": "assistant", "message": {}, "api_error_params": {"rate_limit_info": info}}
    assert transcript(message).usage_limit(0) == UsageLimit(31 * 86_400, "seven_day")
    for params in (None, [], {"rate_limit_info": "soon"}):
        assert not transcript({**message, "api_error_params": params}).limit_reached


@cases(
    ("fields", "fault_class", "sentence"),
    [
        ({"num_turns": 0}, "client", "a command of its own"),
        ({"terminal_reason": "tool_deferred"}, "client", "tool_deferred"),
        ({"terminal_reason": "hook_stopped"}, "client", "hook_stopped"),
        ({"terminal_reason": "aborted_tools"}, "infra", "aborted_tools"),
        ({"terminal_reason": "of_a_later_version"}, "infra", "of_a_later_version"),
    ],
)
def test_a_success_may_hide_a_task_that_was_not_done(
    fields: dict[str, Any], fault_class: str, sentence: str
) -> None:
    fault = flaw({"subtype": "success", "is_error": False, "num_turns": 1, **fields})
    assert fault is not None
    assert (fault.fault_class, sentence in fault.sentence) == (fault_class, True)


@cases("reason", [None, "completed"])
def test_a_task_that_was_done_has_no_flaw(reason: str | None) -> None:
    assert flaw({"is_error": False, "num_turns": 1, "terminal_reason": reason}) is None


def test_the_type_of_an_api_error_is_told_rather_than_unknown() -> None:
    result = failed(api_error_status=400, api_error_type="invalid_request_error")
    fault = judge(result, "unknown", limit_reached=False)
    assert (fault.fault_class, fault.sentence) == (
        "client",
        "The model's API answered 400 (invalid_request_error).",
    )


def servers(*listed: Any) -> dict[str, Any]:
    return {"type": "system", "subtype": "init", "mcp_servers": list(listed)}


def test_only_a_connected_server_is_one() -> None:
    assert transcript().server_connected
    assert transcript(servers({"name": "trigger", "status": "connected"})).server_connected
    for status in ("failed", "needs-auth", "pending", "of_a_later_version"):
        assert not transcript(servers({"name": "trigger", "status": status})).server_connected
    assert not transcript(servers({"name": "other", "status": "connected"})).server_connected
    assert transcript(servers({"name": "trigger", "status": "needs-auth"})).server_refused
    assert not transcript(servers({"name": "trigger", "status": "pending"})).server_refused


def test_a_server_that_was_used_was_connected() -> None:
    call = {"type": "tool_use", "name": "mcp__trigger__echo"}
    gathered = transcript(
        servers({"name": "trigger", "status": "pending"}),
        {"type": "assistant", "message": {"id": "m", "content": [call]}},
    )
    assert gathered.server_connected


def background(*tasks: str) -> dict[str, Any]:
    return {"type": "system", "subtype": "background_tasks_changed", "tasks": list(tasks)}


def test_work_in_the_background_keeps_claude_from_being_finished() -> None:
    result = {"type": "result", "subtype": "success", "is_error": False, "result": "first"}
    assert transcript(background("t"), result).finished_at is None
    assert transcript(background("t"), result, background()).finished_at is not None
    second_turn = [background("t"), result, background(), {"type": "system", "subtype": "init"}]
    assert transcript(*second_turn).finished_at is None
    gathered = transcript(*second_turn, {**result, "result": "second"})
    assert gathered.finished_at is not None
    assert gathered.result is not None
    assert gathered.result["result"] == "second"


def test_claude_retries_until_another_event_comes() -> None:
    retry = {"type": "system", "subtype": "api_retry"}
    assert transcript(retry).retrying
    assert not transcript(retry, {"type": "assistant", "message": {}}).retrying


def test_the_tokens_of_sub_agents_count() -> None:
    usage = {"a": {"inputTokens": 1, "outputTokens": 2}, "b": {"cacheReadInputTokens": 3}, "c": 5}
    result = {"type": "result", "usage": {"input_tokens": 1}, "modelUsage": usage}
    assert transcript(result, result).tokens == Tokens(1, 2, 3)


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


@cases(
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
