"""An action and its audit row are committed together, or neither is."""

from contextlib import contextmanager

import pytest
from django.db import connection

from audit.tests.calls import CHANGING, Call
from pipedai.events import happened
from testing.probes.tables import contents
from testing.world.undone import undone

# A heartbeat writes no audit row, nor do the events of a run, a look at it and a sign-off. Neither does a pairing
# before somebody decides on it, a forgotten password before the new one is set, nor fresh headers for a known receiver.
SILENT = (
    "/heartbeat",
    "/events",
    "/watch",
    "/credentials",
    "/sign-off",
    " enrollments/device",
    " auth/forgot-password",
)
# This call notes that the worker is alive before it looks for a run, as a poll does. It does so at most every 10 s.
SEEN_FIRST = "POST workers/:worker/claim-next"
TELLING = [name for name in CHANGING if not name.endswith(SILENT)]


@contextmanager
def failing_receiver():
    """Connects a second receiver, which fails after the audit log has written its row."""

    def fail(**_):
        raise RuntimeError("no")

    happened.connect(fail)
    try:
        yield
    finally:
        happened.disconnect(fail)


@pytest.fixture
def failing_table(db):
    """Makes the database refuse every audit row."""
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION refuse_row() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'no room'; END $$;"
            "CREATE TRIGGER refuse_row BEFORE INSERT ON audit_entry"
            " FOR EACH ROW EXECUTE FUNCTION refuse_row()"
        )


def state():
    """Returns the content of all tables, except the throttles' counters, which count failed calls too."""
    return {name: rows for name, rows in contents().items() if name != "throttle"}


def test_what_cannot_be_told_does_not_happen(stage, subtests):
    for name in TELLING:
        with subtests.test(name), undone():
            _does_not_happen_untold(stage, name)


def _does_not_happen_untold(stage, name):
    call = Call(stage, name)
    call.client.raise_request_exception = False
    if name == SEEN_FIRST:
        poll = f"/api/v1/workers/{stage.cast.worker.worker_id}/poll"
        assert call.client.get(poll).status_code == 200
    before = state()
    with failing_receiver():
        answer = call.send()
    assert answer.status_code == 500
    assert not answer.cookies
    assert state() == before


@pytest.mark.parametrize(
    "name", ["POST triggers/:trigger/run", "POST workers/:worker/runs/:run/complete"]
)
def test_nor_does_what_cannot_be_written_down(stage, name, request):
    call = Call(stage, name)
    call.client.raise_request_exception = False
    request.getfixturevalue("failing_table")
    before = state()
    assert call.send().status_code == 500
    assert state() == before


def test_the_same_calls_do_change_something(stage):
    call = Call(stage, "POST triggers/:trigger/run")
    before = state()
    assert call.send().status_code == 201
    assert state() != before
