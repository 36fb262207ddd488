"""What tests of channels share: channels, incidents, a mail server, and one step of a sender."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from django.db import transaction

from notices.channels.sending import NOTICES
from notices.incidents import Moment, announce
from notices.models import Incident
from notices.states import Kind
from pipedai.ids import new_id
from pipedai.outgoing import attempts
from pipedai.outgoing.due import claim_due
from testing.processes.mail_receiver import MailReceiver, receiving_mail
from testing.world.cast import Cast

LATE = datetime(2100, 1, 1, tzinfo=UTC)


@pytest.fixture
def mail_server(settings: Any) -> Iterator[MailReceiver]:
    """A mail server that the service is set up to use."""
    with receiving_mail() as receiver:
        settings.EMAIL_URL = receiver.url()
        yield receiver


def add_incidents(cast: Cast, count: int = 1, *, name: str = "Nightly report") -> list[UUID]:
    """Adds open incidents, each of another trigger, of which nobody has been told. `{}` in the name is its number."""
    rows = [
        Incident(
            environment_id=cast.environment.id,
            kind=Kind.TRIGGER_FAILING,
            subject_type="trigger",
            subject_id=new_id(),
            subject_name=name.format(number),
            message="The last run failed or timed out.",
        )
        for number in range(count)
    ]
    return [row.id for row in Incident.objects.bulk_create(rows)]


def tell(
    cast: Cast, ids: list[UUID], moment: Moment = "opened", *, now: datetime | None = None
) -> None:
    """Announces incidents, all in one transaction."""
    rows = [
        {"id": id_, "environment_id": cast.environment.id, "kind": Kind.TRIGGER_FAILING.value}
        for id_ in ids
    ]
    with transaction.atomic():
        announce({moment: rows}, now=now)


@pytest.fixture
def open_incidents(cast: Cast) -> Callable[..., list[UUID]]:
    """Opens incidents and has them told."""

    def opened(count: int = 1, *, now: datetime | None = None, **values: Any) -> list[UUID]:
        ids = add_incidents(cast, count, **values)
        tell(cast, ids, now=now)
        return ids

    return opened


def send_due(now: datetime = LATE) -> list[Any]:
    """Sends all notices that are due, as a scheduler does, and returns the answers."""
    answers = []
    while rows := claim_due(NOTICES, room=100, busy={}, per_host=100, now=now):
        for row in rows:
            answer = attempts.send(NOTICES, row)
            attempts.record(NOTICES, [(row, answer)], now=now)
            answers.append(answer)
    return answers
