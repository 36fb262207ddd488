"""The outcome of a run, as its worker reports it."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from triggers.states import FaultClass, Status

MAX_SHORT_MESSAGE = 500
MAX_ERROR_MESSAGE = 8_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A worker's report that ends a run, after validation.

    Its messages have been cut to their longest length, and `settled_fault` has decided `fault_class`. The other fields
    have the names and the units of the columns of Run. `retry_after_seconds` postpones a retry.
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

    @property
    def blames_infrastructure(self) -> bool:
        """Returns whether infrastructure is to blame for the end of the run, so that the run may get a retry."""
        return self.fault_class == FaultClass.INFRA

    def columns(self) -> dict[str, Any]:
        """Returns the report's values under the names of the parameters of the SQL statement `statements.COMPLETE`."""
        return {name: getattr(self, name) for name in self.__slots__}


def settled_fault(status: str, reported: str | None) -> str:
    """Returns whose fault the end of a run was (SPEC §6).

    It is nobody's if the run succeeded or was canceled. Otherwise it is the client's, unless the worker said `infra`.
    """
    if status in (Status.SUCCEEDED, Status.CANCELED):
        return FaultClass.NONE
    return FaultClass.INFRA if reported == FaultClass.INFRA else FaultClass.CLIENT
