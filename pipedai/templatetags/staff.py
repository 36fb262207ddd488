"""What admin's own templates need of Python."""

from collections.abc import Iterable, Iterator
from typing import Any

from django import template

register = template.Library()


@register.filter
def beside(headers: Iterable[str], row: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    """Each header with the row's cell under it."""
    return zip(headers, row, strict=True)
