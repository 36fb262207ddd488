"""The two errors that end a request before Django sees it: the request is refused, or its client has left."""

from http import HTTPStatus

from pipedai.api.error_codes import ErrorCode


class Refused(Exception):  # noqa: N818 - an answer, not a failure
    """Ends a request with this status, sentence and error code.

    `unread` says whether a part of the request's body may not have arrived yet. `retry_after` is the number of seconds
    after which the client may send the request again.
    """

    def __init__(
        self,
        status: HTTPStatus,
        sentence: str,
        *,
        code: ErrorCode,
        unread: bool = True,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.unread = unread
        self.code = code
        self.retry_after = retry_after


class ClientGone(Exception):  # noqa: N818
    """The client has left, so nobody waits for an answer."""
