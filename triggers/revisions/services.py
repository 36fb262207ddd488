"""Restores revisions of triggers (SPEC §23)."""

from uuid import UUID

from pipedai.api.errors import or_not_found
from pipedai.events import Actor
from triggers.models import TriggerRevision
from triggers.services import TRIGGERS


def restore_revision(*, trigger_id: UUID, revision_id: UUID, actor: Actor) -> None:
    """Gives a trigger the prompt, model and output schema of one of its revisions again, as a new revision. It changes
    nothing if the trigger has them already, so a call may be repeated.

    Raises NotFound, also for a revision of another trigger, and whatever `hold_role` raises.
    """
    # The row is read before the trigger is locked, because it never changes.
    rows = TriggerRevision.objects.filter(id=revision_id, trigger_id=trigger_id)
    values = or_not_found(rows.values("prompt", "model", "output_schema").first())
    TRIGGERS.update(trigger_id, values=dict(values), actor=actor, restored_id=revision_id)
