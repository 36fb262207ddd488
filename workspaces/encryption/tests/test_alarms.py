"""The alarm about a value that does not open says where and why, and is not repeated in a loop."""

from uuid import UUID

from structlog.testing import capture_logs

from pipedai.crypto import BrokenDataKey, CannotOpen, UnknownMasterKey
from testing.world.cases import cases
from workspaces.encryption import keys as alarms_module
from workspaces.encryption.keys import REPEAT_SECONDS, Alarms

PLACE = {
    "environment_id": UUID(int=1),
    "table": "trigger",
    "row_id": UUID(int=2),
    "field": "mcp_headers",
    "wrapped_under": "k1",
}


def raised(alarms, now, error=None, **place):
    with capture_logs() as logs:
        alarms.raise_alarm(error or CannotOpen(), now=now, **{**PLACE, **place})
    return logs


def test_it_says_where_and_under_which_key():
    (line,) = raised(Alarms(), 0.0)
    assert line == {
        "event": "secret.cannot_open",
        "log_level": "error",
        "environment_id": str(UUID(int=1)),
        "table": "trigger",
        "row_id": str(UUID(int=2)),
        "field": "mcp_headers",
        "reason": "the value was tampered with, moved or cut",
        "wrapped_under": "k1",
    }


@cases(
    ("error", "words"),
    [(UnknownMasterKey(), "not among MASTER_KEYS"), (BrokenDataKey(), "the data key was tampered")],
)
def test_it_says_why(error, words):
    (line,) = raised(Alarms(), 0.0, error)
    assert words in line["reason"]


def test_each_place_is_told_of_once_in_five_minutes():
    alarms = Alarms()
    times = (0.0, 1.0, REPEAT_SECONDS - 1, REPEAT_SECONDS, REPEAT_SECONDS + 1)
    assert [len(raised(alarms, now)) for now in times] == [1, 0, 0, 1, 0]


@cases(
    "other",
    [
        {"row_id": UUID(int=3)},
        {"field": "webhook_secret"},
        {"table": "data_key"},
        {"environment_id": UUID(int=4)},
    ],
)
def test_another_place_is_another_alarm(other):
    alarms = Alarms()
    assert len(raised(alarms, 0.0)) == len(raised(alarms, 0.0, **other)) == 1


def test_it_remembers_only_so_many_places(monkeypatch):
    monkeypatch.setattr(alarms_module, "_PLACES_REMEMBERED", 3)
    alarms = Alarms()
    for number in range(10):
        raised(alarms, 0.0, row_id=UUID(int=number))
    assert len(alarms._told) == 3
