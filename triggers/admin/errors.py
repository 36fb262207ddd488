"""Shows in lists why runs failed, without reading their whole error messages."""

from typing import Any

from django.db.models.functions import Left

from pipedai.admin.values import excerpt
from triggers.models import Run
from triggers.states import FaultClass

# How many characters of an error message a list reads.
_READ = 300


def beginning_of_error(run: str = "") -> Left:
    """Returns the expression for the beginning of a run's error message, to annotate rows with. `run` is the path from
    the rows to the run, such as `run__`.
    """
    return Left(f"{run}text__error_message", _READ)


def shown_error(run: Run, begins: str | None) -> Any:
    """Returns the beginning of a run's error message, or what the worker said of a failed run that has none."""
    is_failure = run.fault_class in (FaultClass.INFRA, FaultClass.CLIENT)
    return excerpt(begins or (run.short_message if is_failure else None))
