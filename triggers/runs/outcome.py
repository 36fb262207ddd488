"""What a worker reports of a run that it ended."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from triggers.states import FaultClass, Status

MAX_SHORT_MESSAGE = 500
MAX_ERROR_MESSAGE = 8_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A `complete`, in our terms: messages cut, `fault_class` settled by `settled_fault`."""

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
        """Whether it may call for a retry."""
        return self.fault_class == FaultClass.INFRA

    def columns(self) -> dict[str, Any]:
        """Its values by the names of the run's columns."""
        return {name: getattr(self, name) for name in self.__slots__}


def settled_fault(status: str, reported: str | None) -> str:
    """Whose fault it is: nobody's unless it failed or timed out, the client's unless the worker says otherwise."""
    if status in (Status.SUCCEEDED, Status.CANCELED):
        return FaultClass.NONE
    return FaultClass.INFRA if reported == FaultClass.INFRA else FaultClass.CLIENT
