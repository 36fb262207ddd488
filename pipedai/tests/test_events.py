"""Domain events reach their receivers inside the transaction of the action."""

import re

import pytest
from django.db import transaction

from audit.models import AuditEntry
from pipedai.env import BASE_DIR
from pipedai.events import ACTIONS, SYSTEM, Actor, Event, emit, happened
from pipedai.ids import new_id

PACKAGES = (
    "pipedai",
    "accounts",
    "workspaces",
    "triggers",
    "workers",
    "notices",
    "audit",
    "console",
)


def event(action="run.created", **more):
    return Event(action, SYSTEM, None, "run", new_id(), **more)


@pytest.fixture
def heard():
    """Collects the events that a receiver gets."""
    events = []

    def receive(**kwargs):
        events.append(kwargs["events"])

    happened.connect(receive)
    yield events
    happened.disconnect(receive)


def test_an_unknown_action_is_a_programming_error():
    with pytest.raises(ValueError, match=r"'run\.exploded' is not a registered action"):
        event("run.exploded")


@pytest.mark.django_db
class TestTelling:
    def test_all_events_of_a_call_are_heard_at_once_and_in_order(self, heard):
        events = [event(), event("run.claimed"), event("run.started")]
        with transaction.atomic():
            emit(*events)
        assert heard == [tuple(events)]

    def test_nothing_is_told_of_nothing(self, heard):
        emit()
        assert heard == []

    def test_a_failing_receiver_is_the_callers_failure(self):
        def fail(**_):
            raise RuntimeError("no")

        happened.connect(fail)
        try:
            with pytest.raises(RuntimeError, match="no"), transaction.atomic():
                emit(event())
        finally:
            happened.disconnect(fail)
        assert not AuditEntry.objects.exists()


def test_outside_a_transaction_it_is_refused(own_database):
    with pytest.raises(RuntimeError, match="needs a transaction"):
        emit(event())
    assert not AuditEntry.objects.exists()


def test_an_event_and_an_actor_cannot_be_changed():
    for frozen, name in ((event(), "action"), (Actor("user"), "type")):
        with pytest.raises(AttributeError):
            setattr(frozen, name, "x")


def test_actions_fit_the_column_and_look_alike():
    length = AuditEntry._meta.get_field("action").max_length
    for action in ACTIONS:
        assert re.fullmatch(r"[a-z-]+\.[a-z-]+", action)
        assert length is not None
        assert len(action) <= length


def test_what_the_code_tells_of_is_registered():
    """This reads the actions from the source code, so that it also covers branches that no test reaches."""
    paths = [path for package in PACKAGES for path in (BASE_DIR / package).rglob("*.py")]
    code = "\n".join(path.read_text() for path in paths if "tests" not in path.parts)
    named = set(re.findall(r'(?:Event|_event|_emit|emit_own)\(\s*"([a-z-]+[.][^"]+)"', code))
    # A resource puts its noun before what it tells.
    told = re.findall(r'\b([A-Z]+)S\.tell\(\s*"([^"]+)"', code)
    named |= {f"{noun.lower()}.{what}" for noun, what in told}
    assert {"run.claimed", "connection.authorized", "user.logged-in"} <= named
    assert named <= ACTIONS
