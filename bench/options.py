"""The types of the options of benchmarks."""

import argparse
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def one_or_more(each: Callable[[str], T]) -> Callable[[str], list[T]]:
    """Return the type of an option with commas between values."""
    return lambda text: [each(word) for word in text.split(",")]


def count(text: str) -> int:
    return _whole(text, 1, 1_000_000)


def size(text: str) -> int:
    """Read a number of rows, such as 10k or 2m."""
    digits = text.lower().replace("k", "000").replace("m", "000000")
    return _whole(digits, 1000, 100_000_000)


def seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 1 <= number <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 1 to 3600.")
    return number


def _whole(text: str, least: int, most: int) -> int:
    if not text.isdecimal() or not least <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least} to {most}.")
    return int(text)
