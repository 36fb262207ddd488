"""How sentences say numbers."""


def counted(number: int, singular: str) -> str:
    """`1 trigger`, `2 triggers`, `2 deliveries`."""
    if number == 1:
        return f"{number} {singular}"
    if singular.endswith("y") and singular[-2] not in "aeiou":
        return f"{number} {singular[:-1]}ies"
    return f"{number} {singular}s"
