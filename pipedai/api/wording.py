"""Writes counts, field names and excerpts for people to read."""

# How many characters of a changed text an audit row shows, at most.
_LONGEST_SHOWN = 200


def counted(number: int, singular: str) -> str:
    """Returns the number with its noun, such as `1 trigger`, `2 triggers` or `2 deliveries`."""
    if number == 1:
        return f"{number} {singular}"
    if singular.endswith("y") and singular[-2] not in "aeiou":
        return f"{number} {singular[:-1]}ies"
    return f"{number} {singular}s"


def api_name(attribute: str) -> str:
    """Returns the API's name for an attribute of the code: `maxRetries` for `max_retries`."""
    first, *others = attribute.split("_")
    return first + "".join(word.capitalize() for word in others)


def cut(text: str) -> str:
    """Returns the text as the audit log shows it: a long one is cut, and ends in an ellipsis."""
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
