"""Template filters for the admin's own templates."""

from collections.abc import Iterable, Iterator
from typing import Any

from django import template

register = template.Library()


@register.filter
def beside(headers: Iterable[str], row: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    """Yields each column's header together with the row's cell in that column."""
    return zip(headers, row, strict=True)
