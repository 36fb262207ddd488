"""Makes incidents for tests that care for the incident and not for its cause."""

from uuid import UUID

from django.db import transaction

from notices.incidents import Finding, change_incidents
from notices.models import Incident
from notices.states import Kind
from pipedai.ids import new_id
from testing.world.cast import Cast


def open_incident(cast: Cast, **values: UUID) -> UUID:
    """Opens an incident in the cast's environment and returns its id. It is about a trigger that does not exist, unless
    `subject_id` names one.
    """
    subject_id = values.get("subject_id", new_id())
    finding = Finding(cast.environment.id, subject_id, "Nightly report", "It broke.")
    with transaction.atomic():
        change_incidents(Kind.TRIGGER_FAILING, begun=[finding])
    incident_id: UUID = Incident.objects.get(subject_id=subject_id, closed_at__isnull=True).id
    return incident_id
