"""Keeps files from leading a secret to a server that nobody accepted, and from losing one without a word."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Conflict
from pipedai.api.outside_urls import origin_of
from pipedai.api.renderers import compact_json
from workspaces.files import values
from workspaces.files.changes import Change
from workspaces.files.kinds import Row, Secret, kinds
from workspaces.files.requests import Request


def check_origins(
    before: Mapping[str, Mapping[UUID, Row]],
    changes: Sequence[Change],
    after: Mapping[UUID, Row],
    request: Request,
) -> None:
    """Raises Conflict if a secret would go to an origin to which this secret does not go yet, or is lost because its
    row moves and the request has no value for it. A plan warns of both, and an apply that accepts the origin, of what
    is lost.
    """
    work = _Origins(before, request)
    for change in changes:
        if (row := after.get(change.id)) is not None:
            for name, secret in change.kind.secrets.items():
                target = change.kind.target_of(row, secret)
                if values.has_secret(change.kind, row, name):
                    if name in change.secrets and secret.is_sent and target:
                        work.check_new(change, name, secret, target)
                elif name in change.kept:
                    work.check_lost(change, name, secret, target)


class _Origins:
    def __init__(self, before: Mapping[str, Mapping[UUID, Row]], request: Request) -> None:
        self._before = before
        self._request = request
        # To which origins each value goes, as JSON. It is made when it is asked for, since it opens all secrets.
        self._known: set[tuple[str, str]] | None = None

    def check_new(self, change: Change, name: str, secret: Secret, target: str) -> None:
        """Checks a secret that was written. It may replace one that went to the same origin."""
        assert change.wanted is not None
        origin = origin_of(target)
        if origin in self._request.accept_origins:
            return
        if values.has_secret(change.kind, change.row, name):
            assert change.row is not None
            if (old := change.kind.target_of(change.row, secret)) and origin_of(old) == origin:
                return
        if (_text(change.wanted.secrets[name]), origin) in self._goes_to():
            return
        self._refuse(
            change,
            f"{name} would go to {target}, and goes to no place of {origin} yet: accept this origin.",
        )

    def check_lost(self, change: Change, name: str, secret: Secret, target: str | None) -> None:
        if target is None:
            change.warnings.append(f"The stored {name} is lost, as it is for another server.")
            return
        origin = origin_of(target)
        place = origin if change.kind.holder_of_target(secret) else target
        if origin in self._request.accept_origins:
            change.warnings.append(
                f"The stored {name} is lost, as it is not for {place}, and it has no value here."
            )
            return
        self._refuse(
            change,
            f"The stored {name} would be lost, as it is not for {place}: give its value, or accept the origin {origin}"
            " without it.",
        )

    def _refuse(self, change: Change, sentence: str) -> None:
        if not self._request.is_plan:
            raise Conflict(f"{change.name}: {sentence}", code=ErrorCode.NEW_ORIGIN)
        change.warnings.append(sentence)

    def _goes_to(self) -> set[tuple[str, str]]:
        if self._known is None:
            self._known = {
                (_text(secret.opened(row)), origin_of(target))
                for kind in kinds()
                for secret in kind.secrets.values()
                if secret.is_sent
                for row in self._before[kind.name].values()
                if row[secret.sealed.column] is not None and (target := kind.target_of(row, secret))
            }
        return self._known


def _text(secret: Any) -> str:
    return compact_json(secret)
