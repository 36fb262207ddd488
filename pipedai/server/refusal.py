"""The two ways in which a request ends below Django: it is refused, or its client is gone."""

from http import HTTPStatus

from pipedai.api.error_codes import ErrorCode


class Refused(Exception):  # noqa: N818 - an answer, not a failure
    """The request is answered with this status and sentence before anyone else sees it.

    `unread` says whether some of its body may still be on its way, `retry_after` in how many seconds it may be sent
    again.
    """

    def __init__(
        self,
        status: HTTPStatus,
        sentence: str,
        *,
        unread: bool = True,
        code: ErrorCode | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.unread = unread
        self.code = code
        self.retry_after = retry_after


class ClientGone(Exception):  # noqa: N818
    """The client went away; nobody waits for an answer."""
