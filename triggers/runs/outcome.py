"""The outcome of a run, as its worker reports it, and the counts of the run's tool calls."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from pipedai.sql import Row
from triggers.models import MAX_SPELLS
from triggers.states import HELD, EndedBy, FaultClass, Status

MAX_SHORT_MESSAGE = 500
MAX_ERROR_MESSAGE = 8_000
MAX_LISTED_CALLS = 500
MAX_LIMIT_KIND = 64
# The two constants below list the words by which a worker describes a call of an MCP tool: its result, and the effect
# that the tool may have according to its MCP server.
CALL_OUTCOMES = ("ok", "error", "unknown")
CALL_EFFECTS = ("none", "idempotent", "possible")
MAX_OUTPUT_BYTES = 64 * 1024
# How many names of tools whose calls were denied a run keeps.
MAX_DENIED_TOOLS = 20

_DENIED = "The run was denied calls of tools, and the trigger's failOnDenied forbids that."
_TOO_MANY_SPELLS = f"The run asked for approvals in {MAX_SPELLS} spells, as many as it may have."
_NO_OUTPUT = "The machine reported no output, although the trigger has an output schema."


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
class Question:
    """A call of a tool about which a person has to decide, so that the run stops. `arguments` is JSON text without
    secrets. The worker's gateway recognises the call by the hashes; see Approval.
    """

    tool: str
    arguments: str
    arguments_hash: str
    tool_schema_hash: str


@dataclass(frozen=True, slots=True)
class Denials:
    """How many calls a run was denied, and the names of the tools of the first ones."""

    total: int
    # MAX_DENIED_TOOLS at most.
    tools: list[str]


@dataclass(frozen=True, slots=True)
class Look:
    """What a worker saw when it looked for something new: the SHA-256 as 64 hexadecimal digits, when it looked, and
    whether it therefore did not start the agent. Without a digest, the worker's report of it could not be read.
    """

    digest: str | None
    looked_at: datetime | None
    nothing_new: bool


UNREADABLE = Look(None, None, nothing_new=False)


@dataclass(frozen=True, slots=True)
class UsageLimit:
    """When a usage limit ends, and a word for what it limits, such as `five_hour`."""

    resets_at: datetime
    kind: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A worker's report that ends a run, or a spell of it, after validation. Messages are cut, and `settled_fault` has
    decided `fault_class`. The other fields are as in Run. `retry_after_seconds` postpones a retry.
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
    # A sentence on why the reported output is not stored; None if there is no such output.
    unfit_output: str | None = None
    # The question for which the run waits, if the status is `waiting`.
    approval: Question | None = None
    # The claimId of the worker's claim, if the status is `waiting`.
    claim_id: str | None = None
    # None if the report does not have them.
    denials: Denials | None = None
    # None if the report does not say that the worker looked.
    look: Look | None = None

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

    @property
    def nothing_new(self) -> bool:
        """Whether the report says that the agent was not started, and no cost, tokens, turns or output contradict that.
        The counts of tool calls are judged with those that heartbeats told.
        """
        tokens = (self.input_tokens, self.output_tokens, self.cache_read_tokens)
        return (
            self.look is not None
            and self.look.nothing_new
            and self.status == Status.SUCCEEDED
            and not any((self.cost_usd, *tokens, self.cache_creation_tokens, self.num_turns))
            and self.output is None
        )

    def dropped(self, run: Row) -> list[str]:
        """Returns sentences on what the report says of a look but the run, which has ended, has not stored."""
        if self.look is None:
            return []
        if self.look.digest is None:
            return ["The report's `before` can't be read, so it was dropped."]
        if run["look_digest"] != self.look.digest:
            return [
                "The run had not been started, or was not to look, so its `before` was dropped."
            ]
        if self.look.nothing_new and not run["nothing_new"]:
            return [
                "The report has a cost, tokens, turns, an output or calls beside the look: `nothingNew` was dropped."
            ]
        return []

    def settled(self, run: Row) -> "Outcome":
        """Returns the outcome that counts for a run as `statements.READ` has it.

        A success without the output that the trigger asks for is a failure, and so is one with denied calls if the
        trigger says so; the worker has checked the output against the schema. A run that found nothing new is no such
        failure. A run that is to be canceled does not wait, and a run that has used up its spells fails. A run that
        only looks is canceled, whatever its worker says.
        """
        if run["look_only"] and self.status != Status.CANCELED:
            return replace(self, status=Status.CANCELED, fault_class=FaultClass.NONE)
        if self.status == Status.WAITING:
            if run["status"] not in HELD and run["ended_by"] != EndedBy.WORKER:
                return self
            if run["cancel_requested_at"] is not None:
                return replace(self, status=Status.CANCELED, fault_class=FaultClass.NONE)
            return self._failed(_TOO_MANY_SPELLS) if run["spells"] >= MAX_SPELLS - 1 else self
        told = self.tool_calls or ToolCalls(0, 0, 0)
        may_be_quiet = (
            run["looks"]
            and run["started_at"]
            and not run["spells"]
            and max(told.total, run["tool_calls_total"] or 0) <= 1
            and not max(told.effects, run["tool_calls_effects"] or 0)
        )
        if self.nothing_new and may_be_quiet:
            return self
        if run["has_output_schema"] and self.lacks_output:
            return self._failed(self.unfit_output or _NO_OUTPUT)
        denied = max(self.denials.total if self.denials else 0, run["denials_total"] or 0)
        if run["fail_on_denied"] and self.status == Status.SUCCEEDED and denied:
            return self._failed(_DENIED)
        return self

    def _failed(self, why: str) -> "Outcome":
        return replace(self, status=Status.FAILED, fault_class=FaultClass.CLIENT, error_message=why)

    def columns(self) -> dict[str, Any]:
        return {
            **{name: getattr(self, name) for name in self.__slots__},
            "lacks_output": self.lacks_output,
            "nothing_new": self.nothing_new,
            "look_digest": self.look and self.look.digest,
            "looked_at": self.look and self.look.looked_at,
            "at_limit": self.at_limit,
            "denials_total": self.denials and self.denials.total,
            "denied_tools": self.denials and list(self.denials.tools),
            **counts_of(self.tool_calls),
        }


def settled_fault(status: str, reported: str | None) -> str:
    """Returns `none` if the run succeeded or was canceled, else `infra` if that was reported, or `client`."""
    if status in (Status.SUCCEEDED, Status.CANCELED):
        return FaultClass.NONE
    return FaultClass.INFRA if reported == FaultClass.INFRA else FaultClass.CLIENT
