"""The loop over a test's cases runs all of them, and tells which failed."""

from dataclasses import dataclass, field

import pytest

from testing.world.cases import cases
from workspaces.models import Workspace


def test_each_case_that_fails_is_named_and_the_others_run_too():
    seen = []

    @cases(("number", "word"), [(1, "one"), (2, "two"), (3, "three"), (4, "four")])
    def is_odd(number, word):
        seen.append(word)
        if number == 4:
            pytest.fail("too large")
        assert number % 2

    with pytest.raises(BaseExceptionGroup, match="2 of 4 cases failed") as failure:
        is_odd()
    assert seen == ["one", "two", "three", "four"]
    notes = [error.__notes__ for error in failure.value.exceptions]
    assert notes == [
        [f"The case: {{'number': {n}, 'word': {w!r}}}"] for n, w in [(2, "two"), (4, "four")]
    ]


@cases("one", [1, 2])
@cases("other", [3, 4])
def test_the_rest_of_the_arguments_are_fixtures(one, tmp_path, other):
    assert tmp_path.is_dir()
    assert one < other


@dataclass
class Clock:
    """A fixture with a field that a case changes."""

    hour: int = 12


@dataclass
class Room:
    """A fixture that holds another."""

    clock: Clock = field(default_factory=Clock)


@pytest.fixture
def room():
    return Room()


@cases("number", [1, 2], undone=True)
def test_what_a_case_does_to_rows_and_fields_is_undone(cast, room, number):
    assert (Workspace.objects.count(), room.clock.hour) == (2, 12)
    Workspace.objects.create(name="new", created_by=cast.owner)
    room.clock.hour += number


def test_a_test_without_cases_is_refused():
    with pytest.raises(AssertionError, match="no case"):
        cases("value", [])
