"""Runs the cases of a test in a loop, since an item of pytest costs more than most cases do."""

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import pytest

_SHOWN = 500


def cases(
    names: str | tuple[str, ...], values: Iterable[Any]
) -> Callable[[Callable[..., Any]], Any]:
    """Does what `pytest.mark.parametrize` does, but in one test, whose failure names every case that failed.

    All cases share the test's fixtures, so it is for tests whose cases leave nothing behind.
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
