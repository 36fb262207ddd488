"""What runs and outsiders wrote, shown as text in which nothing is hidden and nothing acts on the page around it."""

import json
import re
from typing import Any

from django import template

register = template.Library()

# Control characters, such as the escapes that colour a terminal, and those that turn the direction of the text around
# them. A browser shows none of them. Tabs and line ends stay.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
# Indenting makes deeply nested JSON many times as long. Above this many characters it stays on one line.
_LONGEST_INDENTED = 256 * 1024


@register.filter
def visible(text: str | None) -> str:
    """Returns a text with each character that acts without being seen written as its number, as in \\u001b."""
    lines = (text or "").replace("\r\n", "\n")
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", lines)


@register.filter
def first_line(text: str | None) -> str:
    """Returns the first line of a message, or its beginning if the line is long."""
    line = visible((text or "").strip()[:2000]).partition("\n")[0]
    return line if len(line) <= 300 else f"{line[:299]}…"


@register.filter
def spaced(word: str) -> str:
    """Returns a word of a worker, such as `tool_call`, as people read it."""
    return word.replace("_", " ")


@register.filter
def indented(value: Any) -> str:
    """Returns a value of JSON as indented text."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    if len(text) > _LONGEST_INDENTED:
        text = json.dumps(value, ensure_ascii=False)
    return visible(text)


@register.filter
def fields(metadata: dict[str, Any]) -> str:
    """Returns what an audit row tells, a field a line, and a change with an arrow. Texts are as they were written, but
    indented below their field, so that none looks like a field of its own.
    """
    lines = (f"{name}: {_field(value)}" for name, value in metadata.items())
    return visible("\n".join(line.replace("\n", "\n    ") for line in lines))


def _field(value: Any) -> str:
    if isinstance(value, list) and len(value) == 2:
        return " → ".join(map(_field, value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


_OF_CALLS = {
    "ok": "Answered",
    "error": "Failed",
    "unknown": "No answer",
    "none": "Changes nothing",
    "idempotent": "The same if repeated",
    "possible": "May have changed something",
}


@register.filter
def of_call(word: str) -> str:
    """Returns what people read for the outcome or the effect of a tool call."""
    return _OF_CALLS.get(word, word)
