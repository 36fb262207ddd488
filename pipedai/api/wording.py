"""Writes numbers of things in sentences."""


def counted(number: int, singular: str) -> str:
    """Returns the number with its noun, such as `1 trigger`, `2 triggers` or `2 deliveries`."""
    if number == 1:
        return f"{number} {singular}"
    if singular.endswith("y") and singular[-2] not in "aeiou":
        return f"{number} {singular[:-1]}ies"
    return f"{number} {singular}s"
