"""Makes bounded plain text of what runs wrote: without links, and without what a reader could take for ours."""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from pipedai.outgoing.mails import unlinked

# A longer line is broken, because a mail's line has 998 bytes at most (RFC 5322 §2.1.1).
_LONGEST_LINE: Final = 200
# No text shows more characters of one string than this.
_LONGEST_STRING: Final = 20 * 1024
_CUT: Final = "… and more. The page has all of it."


def fit(lines: Iterable[str], most: int, size: Callable[[str], int]) -> list[str]:
    """Returns the first lines, which together have the size `most` at most, with a line that says so if some are left
    out.
    """
    kept: list[str] = []
    left = most - size(_CUT) - 1
    for line in lines:
        left -= size(line) + 1
        if left < 0:
            return [*kept, _CUT]
        kept.append(line)
    return kept


def text_lines(text: str, indent: str = "") -> Iterator[str]:
    """Yields the lines of a text of others."""
    for line in text[:_LONGEST_STRING].splitlines():
        safe = unlinked(line)
        for start in range(0, len(safe) or 1, _LONGEST_LINE):
            yield f"{indent}{safe[start : start + _LONGEST_LINE]}"


def value_lines(value: Any, indent: str = "  ") -> Iterator[str]:
    """Yields a JSON value as indented lines: `key: value`, and `- value` for the items of a list."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _item_lines(f"{indent}{unlinked(key)[:_LONGEST_LINE]}:", item, indent)
    elif isinstance(value, list) and value:
        for item in value:
            yield from _item_lines(f"{indent}-", item, indent)
    elif isinstance(value, str):
        yield from text_lines(value, indent)
    else:
        yield f"{indent}{json.dumps(value)}"


def _item_lines(head: str, item: Any, indent: str) -> Iterator[str]:
    """Yields an item behind its head, or below it if it has several lines."""
    if isinstance(item, dict | list) and item:
        yield head
        yield from value_lines(item, f"{indent}  ")
        return
    lines = list(value_lines(item, "")) or [""]
    if len(lines) == 1:
        yield f"{head} {lines[0]}".rstrip()
        return
    yield head
    yield from (f"{indent}  {line}" for line in lines)
