"""Template filters for the admin's own templates."""

from collections.abc import Iterable, Iterator
from typing import Any

from django import template

register = template.Library()


@register.filter
def beside(headers: Iterable[str], row: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    """Yields each header with the cell of the row that stands under it."""
    return zip(headers, row, strict=True)
