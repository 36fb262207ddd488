"""Makes the JSON error answers that are given below Django."""

import json
from http import HTTPStatus

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import INTERNAL, error_body
from pipedai.server.headers import RawHeaders


def error_answer(
    sentence: str, *, close: bool = False, code: ErrorCode | None = None, **extra: str
) -> tuple[RawHeaders, bytes]:
    """The headers and the body of `{ "error": sentence, … }`.

    `close` announces that the connection ends, as what is left of the request was not read.
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
    """The answer to a crash: nothing of it but the id under which the log has it."""
    return error_answer(INTERNAL, close=close, requestId=request_id)


def phrase(status: int) -> str:
    """The sentence for a status about which there is nothing better to say."""
    try:
        # As the API's own sentences are written: "Not found".
        return HTTPStatus(status).phrase.capitalize()
    except ValueError:
        return "Error"
