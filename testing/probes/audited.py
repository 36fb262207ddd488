"""What a block of a test writes into the audit log."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from audit.models import AuditEntry


class Rows(list[AuditEntry]):
    """The rows, oldest first."""

    def told(self) -> list[tuple[str, dict[str, Any]]]:
        """The action and the metadata of each."""
        return [(row.action, row.metadata) for row in self]

    def the_only(
        self, action: str, *, by: tuple[str, UUID | None], on: tuple[str, UUID], within: UUID | None
    ) -> dict[str, Any]:
        """The metadata of the only row, which is of this action, actor, target and environment."""
        (row,) = self
        assert row.action == action
        assert (row.actor_type, row.actor_id) == by
        assert (row.target_type, row.target_id) == on
        assert row.environment_id == within
        metadata: dict[str, Any] = row.metadata
        return metadata


@contextmanager
def audited() -> Iterator[Rows]:
    """The rows that the block writes, complete when it ends."""
    before = set(AuditEntry.objects.values_list("id", flat=True))
    rows = Rows()
    yield rows
    new = AuditEntry.objects.exclude(id__in=before).order_by("created_at", "id")
    rows.extend(new)
