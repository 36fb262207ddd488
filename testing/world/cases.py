"""Runs the cases of a test in a loop, since an item of pytest costs more than most cases do."""

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import is_dataclass
from typing import Any

import pytest

from testing.world.undone import undone as rolled_back

_SHOWN = 500


def cases(
    names: str | tuple[str, ...], values: Iterable[Any], *, undone: bool = False
) -> Callable[[Callable[..., Any]], Any]:
    """Does what `pytest.mark.parametrize` does, but in one test, whose failure names every case that failed.

    All cases share the test's fixtures, so it is for tests whose cases leave nothing behind. With `undone` this is so
    for what a case does to the database, and to the fields of such fixtures as `runs`.
    """
    arguments = [names] if isinstance(names, str) else names
    listed = [tuple(value) if len(arguments) > 1 else (value,) for value in values]
    assert listed, "There is no case."

    def decorate(test: Callable[..., Any]) -> Callable[..., None]:
        @functools.wraps(test)
        def run(*args: Any, **fixtures: Any) -> None:
            failed: list[BaseException] = []
            for value in listed:
                case = dict(zip(arguments, value, strict=True))
                try:
                    with _undoing(fixtures) if undone else nullcontext():
                        test(*args, **fixtures, **case)
                except (Exception, pytest.fail.Exception) as error:
                    error.add_note(f"The case: {case!r:.{_SHOWN}}")
                    failed.append(error)
            if failed:
                raise BaseExceptionGroup(f"{len(failed)} of {len(listed)} cases failed", failed)

        # pytest gives a test the fixtures that its signature names.
        signature = inspect.signature(test)
        fixtures = [each for each in signature.parameters.values() if each.name not in arguments]
        run.__signature__ = signature.replace(parameters=fixtures)  # type: ignore[attr-defined]
        return run

    return decorate


@contextmanager
def _undoing(fixtures: dict[str, Any]) -> Iterator[None]:
    kept = [(each, dict(vars(each))) for each in _with_fields(fixtures.values())]
    try:
        with rolled_back():
            yield
    finally:
        for fixture, before in kept:
            vars(fixture).update(before)


def _with_fields(things: Iterable[Any]) -> Iterator[Any]:
    """Yields those that are dataclasses, and those in their fields."""
    for thing in things:
        if is_dataclass(thing) and hasattr(thing, "__dict__"):
            yield thing
            yield from _with_fields(vars(thing).values())
