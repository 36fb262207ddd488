"""Collects the audit rows that a block of a test writes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from audit.models import AuditEntry


class Rows(list[AuditEntry]):
    """The audit rows, oldest first."""

    def told(self) -> list[tuple[str, dict[str, Any]]]:
        """Returns the action and the metadata of each row."""
        return [(row.action, row.metadata) for row in self]

    def the_only(
        self, action: str, *, by: tuple[str, UUID | None], on: tuple[str, UUID], within: UUID | None
    ) -> dict[str, Any]:
        """Asserts that there is one row, with this action, actor, target and environment. Returns its metadata."""
        (row,) = self
        assert row.action == action
        assert (row.actor_type, row.actor_id) == by
        assert (row.target_type, row.target_id) == on
        assert row.environment_id == within
        metadata: dict[str, Any] = row.metadata
        return metadata


@contextmanager
def audited() -> Iterator[Rows]:
    """Yields a list that holds the rows which the block writes, once the block has ended."""
    before = set(AuditEntry.objects.values_list("id", flat=True))
    rows = Rows()
    yield rows
    new = AuditEntry.objects.exclude(id__in=before).order_by("created_at", "id")
    rows.extend(new)
