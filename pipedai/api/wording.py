"""How error sentences say numbers."""


def counted(number: int, singular: str) -> str:
    """`1 trigger`, `2 triggers`."""
    return f"{number} {singular}" if number == 1 else f"{number} {singular}s"
