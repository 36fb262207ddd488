"""Every state of the run state machine is documented where it is defined, and the list is complete."""

import ast
import inspect
import itertools

from pipedai.env import BASE_DIR
from testing.world.cases import cases
from triggers import states
from triggers.states import HELD, SERVER_VERDICTS, TERMINAL, UNHELD, EndedBy, Status

LIFECYCLE_DOCUMENT = BASE_DIR / "docs" / "run-lifecycle.md"


@cases("status", Status)
def test_each_state_says_what_it_means_and_who_moves_it_on(status: Status) -> None:
    story = _stories()[status.name]
    if status in TERMINAL:
        assert story.startswith("Ended:")
        assert "Final" in story
    else:
        assert "Moved on by" in story


@cases("status", HELD)
def test_each_state_that_holds_something_says_who_reaps_it(status: Status) -> None:
    assert "reaped by `expire_runs`" in _stories()[status.name]


def test_every_state_is_unheld_held_or_ended() -> None:
    assert sorted(Status) == sorted([*UNHELD, *HELD, *TERMINAL])


def test_the_servers_verdicts_are_known_enders() -> None:
    assert set(SERVER_VERDICTS) < set(EndedBy)


@cases("word", [*Status.values, *EndedBy.values])
def test_the_document_of_the_lifecycle_names_every_state_and_ender(word: str) -> None:
    assert f"`{word}`" in LIFECYCLE_DOCUMENT.read_text()


def _stories() -> dict[str, str]:
    """Returns the string below each member of Status, by the member's name."""
    module = ast.parse(inspect.getsource(states))
    (body,) = (
        node.body
        for node in module.body
        if isinstance(node, ast.ClassDef) and node.name == Status.__name__
    )
    stories = {}
    for member, story in itertools.pairwise(body):
        if isinstance(member, ast.Assign) and isinstance(story, ast.Expr):
            assert isinstance(member.targets[0], ast.Name)
            assert isinstance(story.value, ast.Constant)
            stories[member.targets[0].id] = str(story.value.value)
    return stories
