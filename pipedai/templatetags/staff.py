"""Template filters for the admin's own templates."""

from collections.abc import Iterable, Iterator
from typing import Any

from django import template

register = template.Library()


@register.filter
def beside(headers: Iterable[str], row: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    return zip(headers, row, strict=True)
