"""The cursor paginator: keyset pages, newest first, with signed cursors (SPEC §2)."""

from datetime import datetime
from typing import Any, ClassVar
from urllib.parse import urlencode
from uuid import UUID

from django.core import signing
from django.db.models import Model
from rest_framework.pagination import BasePagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from pipedai.api.errors import Invalid
from pipedai.keyset import before

DEFAULT_LIMIT = 50
MAX_LIMIT = 200


class KeysetPaginator(BasePagination):
    """Pages of `{ items, nextCursor }` by (time, id), descending.

    A cursor is the last row's place, signed with a salt made of the path and the filters: on another list, or after a
    changed filter, it does not verify. It is only a place: the queryset's own tenant filter applies whatever it says.
    """

    time_field: ClassVar[str] = "created_at"

    def paginate_queryset(
        self, queryset: Any, request: Request, view: APIView | None = None
    ) -> list[Any]:
        """The rows of the asked page. Raises Invalid for a bad `limit` or `cursor`."""
        limit = _limit(request)
        self._salt = _salt(request, getattr(view, "filter_names", ()))
        if (cursor := request.query_params.get("cursor")) is not None:
            queryset = queryset.filter(before((self.time_field, "id"), self._open(cursor)))
        rows = list(queryset.order_by(f"-{self.time_field}", "-id")[: limit + 1])
        self._next = self._seal(rows[limit - 1]) if len(rows) > limit else None
        return rows[:limit]

    def get_paginated_response(self, data: Any) -> Response:
        """The page around its rendered rows."""
        return Response({"items": data, "nextCursor": self._next})

    def _seal(self, row: Model | dict[str, Any]) -> str:
        read = row.__getitem__ if isinstance(row, dict) else row.__getattribute__
        return _sign(self._salt, read(self.time_field), read("id"))

    def _open(self, cursor: str) -> tuple[datetime, UUID]:
        try:
            moment, row_id = signing.Signer(salt=self._salt).unsign_object(cursor)
            return datetime.fromisoformat(moment), UUID(row_id)
        except (signing.BadSignature, ValueError, TypeError):
            raise Invalid({"cursor": ["Not a cursor of this list with these filters."]}) from None


def cursor_at(
    request: Request, filter_names: tuple[str, ...], moment: datetime, row_id: UUID
) -> str:
    """The cursor that this request's list, so filtered, continues by after a place."""
    return _sign(_salt(request, filter_names), moment, row_id)


def _sign(salt: str, moment: datetime, row_id: UUID) -> str:
    return signing.Signer(salt=salt).sign_object([moment.isoformat(), row_id.hex])


def _limit(request: Request) -> int:
    sent = request.query_params.get("limit")
    if sent is None:
        return DEFAULT_LIMIT
    if not (sent.isascii() and sent.isdigit() and len(sent) <= 3 and 1 <= int(sent) <= MAX_LIMIT):
        raise Invalid({"limit": [f"Must be a whole number from 1 to {MAX_LIMIT}."]})
    return int(sent)


def _salt(request: Request, filter_names: tuple[str, ...]) -> str:
    sent = sorted(
        (name, value) for name in filter_names for value in request.query_params.getlist(name)
    )
    return f"pipedai.cursor {request.path}?{urlencode(sent)}"
