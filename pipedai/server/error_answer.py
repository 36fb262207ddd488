"""Makes the JSON error answers that the server gives without Django."""

import json
from http import HTTPStatus

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import INTERNAL, error_body
from pipedai.server.headers import RawHeaders


def error_answer(
    sentence: str, *, code: ErrorCode, close: bool = False, **extra: str
) -> tuple[RawHeaders, bytes]:
    """Return the headers and the body of `{ "error": sentence, "code": code, … }`.

    `close` makes the headers announce that the connection ends, because the rest of the request was not read.
    """
    body = json.dumps(error_body(sentence, code=code, **extra)).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    if close:
        headers.append((b"connection", b"close"))
    return headers, body


def crash_answer(request_id: str, *, close: bool = False) -> tuple[RawHeaders, bytes]:
    """Return the answer to a crash. It holds only the request id, under which the log describes the crash."""
    return error_answer(INTERNAL, code=ErrorCode.INTERNAL_ERROR, close=close, requestId=request_id)


def phrase(status: int) -> str:
    """Return a short phrase for an HTTP status, for use where there is no sentence of our own about the error."""
    try:
        # Python's phrase "Not Found" is written as "Not found", like the API's own sentences.
        return HTTPStatus(status).phrase.capitalize()
    except ValueError:
        return "Error"
