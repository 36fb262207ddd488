"""The outcome of a run, as its worker reports it, and the counts of the run's tool calls."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from triggers.states import FaultClass, Status

MAX_SHORT_MESSAGE = 500
MAX_ERROR_MESSAGE = 8_000
MAX_LISTED_CALLS = 500
MAX_LIMIT_KIND = 64
# The two constants below list the words by which a worker describes a call of an MCP tool (SPEC §18): the call's
# result, and the effect that the tool may have according to its MCP server.
CALL_OUTCOMES = ("ok", "error", "unknown")
CALL_EFFECTS = ("none", "idempotent", "possible")
MAX_OUTPUT_BYTES = 64 * 1024

_NO_OUTPUT = "The worker reported no output, although the trigger has an output schema."


@dataclass(frozen=True, slots=True)
class ToolCalls:
    """How many calls of MCP tools a run has made, how many of these calls may have changed something, and how many of
    them got no answer.
    """

    total: int
    effects: int
    unknown: int


def counts_of(calls: ToolCalls | None) -> dict[str, Any]:
    """Returns the counts as the parameters of SQL statements."""
    return {
        "tool_calls_total": calls and calls.total,
        "tool_calls_effects": calls and calls.effects,
        "tool_calls_unknown": calls and calls.unknown,
    }


@dataclass(frozen=True, slots=True)
class UsageLimit:
    """When a usage limit ends, and a word for what it limits, such as `five_hour`."""

    resets_at: datetime
    kind: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A worker's report that ends a run, after validation. Messages are cut, and `settled_fault` has decided
    `fault_class`. The other fields are as in Run. `retry_after_seconds` postpones a retry.
    """

    status: str
    fault_class: str
    exit_code: int | None = None
    short_message: str | None = None
    error_message: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_creation_tokens: int | None = None
    cost_usd: Decimal | None = None
    num_turns: int | None = None
    session_id: str | None = None
    model: str | None = None
    retry_after_seconds: int | None = None
    # None if no usage limit was reached. It counts only for a failure of infrastructure.
    usage_limit: UsageLimit | None = None
    # None if the report has no counts of tool calls. Then the counts that the worker sent with its heartbeats stay.
    tool_calls: ToolCalls | None = None
    # The run's first tool calls, MAX_LISTED_CALLS at most, in the form in which the API shows them.
    tool_call_list: Sequence[dict[str, Any]] = ()
    # The run's output as JSON text, up to MAX_OUTPUT_BYTES; None if there is none. An output of `null` is "null".
    output: str | None = None
    # The sentence that says why an output that the worker reported is not kept; None if there was no such output.
    unfit_output: str | None = None

    @property
    def blames_infrastructure(self) -> bool:
        return self.fault_class == FaultClass.INFRA

    @property
    def at_limit(self) -> bool:
        return (
            self.usage_limit is not None
            and self.status == Status.FAILED
            and self.blames_infrastructure
        )

    @property
    def lacks_output(self) -> bool:
        return self.status == Status.SUCCEEDED and self.output is None

    def settled(self, *, has_output_schema: bool) -> "Outcome":
        """Returns the outcome that counts: a success without the output that the trigger asks for is a failure. The
        worker has checked the output against the schema (SPEC §18).
        """
        if not has_output_schema or not self.lacks_output:
            return self
        return replace(
            self,
            status=Status.FAILED,
            fault_class=FaultClass.CLIENT,
            error_message=self.unfit_output or _NO_OUTPUT,
        )

    def columns(self) -> dict[str, Any]:
        return {
            **{name: getattr(self, name) for name in self.__slots__},
            "lacks_output": self.lacks_output,
            "at_limit": self.at_limit,
            **counts_of(self.tool_calls),
        }


def settled_fault(status: str, reported: str | None) -> str:
    """Returns `none` if the run succeeded or was canceled, else `infra` if that was reported, or `client`."""
    if status in (Status.SUCCEEDED, Status.CANCELED):
        return FaultClass.NONE
    return FaultClass.INFRA if reported == FaultClass.INFRA else FaultClass.CLIENT
