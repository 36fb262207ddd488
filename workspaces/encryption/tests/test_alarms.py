"""The alarm about a value that does not open says where and why, and is not repeated in a loop."""

from uuid import UUID

import pytest
from structlog.testing import capture_logs

from pipedai.api.throttling import Buckets
from pipedai.crypto import BrokenDataKey, CannotOpen, UnknownMasterKey
from pipedai.ids import new_id
from testing.world.cases import cases
from workspaces.encryption import keys
from workspaces.encryption.keys import REPEATED, raise_alarm

PLACE = {
    "environment_id": UUID(int=1),
    "table": "trigger",
    "row_id": UUID(int=2),
    "field": "mcp_headers",
    "wrapped_under": "k1",
}


@pytest.fixture(autouse=True)
def _told_of_nothing(monkeypatch):
    monkeypatch.setattr(keys, "_told", Buckets(REPEATED, 1, most=3))


def raised(now, error=None, **place):
    with capture_logs() as logs:
        raise_alarm(error or CannotOpen(), now=now, **{**PLACE, **place})
    return logs


def test_it_says_where_and_under_which_key():
    (line,) = raised(0.0)
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
    (line,) = raised(0.0, error, row_id=new_id())
    assert words in line["reason"]


def test_each_place_is_told_of_once_in_five_minutes():
    times = (0.0, 1.0, 299.0, 301.0, 302.0, 599.0, 602.0)
    assert [len(raised(now)) for now in times] == [1, 0, 0, 1, 0, 0, 1]


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
    raised(0.0)
    assert len(raised(0.0, **other)) == 1


def test_it_remembers_only_so_many_places():
    for number in range(10):
        raised(0.0, row_id=UUID(int=number))
    assert len(keys._told) == 3
