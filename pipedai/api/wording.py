"""Writes counts and field names for sentences that people read."""


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
