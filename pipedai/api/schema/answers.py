"""Describes the answers that all operations share: errors, and the headers of every answer."""

from typing import Any

from pipedai.api.error_codes import ErrorCode
from pipedai.api.schema.operation import Schema

JSON = "application/json"

_TEXT: Schema = {"type": "string"}
_SECONDS: Schema = {"type": "integer", "minimum": 0}

# The headers of answers by name: schema, description, and whether an answer that lists the header always has it.
_HEADERS: dict[str, tuple[Schema, str, bool]] = {
    "X-Request-Id": (
        {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"},
        "The request's own id if it sent a good one, else a new one; the log has the request under it.",
        True,
    ),
    "Cache-Control": ({"const": "no-store"}, "Answers are never cached.", True),
    "Content-Security-Policy": (
        {"const": "default-src 'none'; frame-ancestors 'none'"},
        "An answer is no page.",
        True,
    ),
    "X-Content-Type-Options": ({"const": "nosniff"}, "The type is what it says.", True),
    "Strict-Transport-Security": (_TEXT, "In production.", False),
    "WWW-Authenticate": ({"const": 'Bearer realm="pipedai"'}, "How to authenticate.", True),
    "Allow": (_TEXT, "The methods that the path has.", True),
    "Retry-After": (_SECONDS, "Seconds after which to try again.", True),
    "RateLimit": (_TEXT, "What is left of the rate, and for how many seconds.", True),
    "RateLimit-Policy": (_TEXT, "The rate: how often in how many seconds.", True),
    "Set-Cookie": (_TEXT, "The `auth_token` cookie.", True),
    "Clear-Site-Data": ({"const": '"cache"'}, "Has browsers forget what they cached.", True),
    "Idempotent-Replayed": ({"const": "true"}, "The call was made before.", True),
}
EVERYWHERE = (
    "X-Request-Id",
    "Cache-Control",
    "Content-Security-Policy",
    "X-Content-Type-Options",
    "Strict-Transport-Security",
)

# The error answers by status: component's name, name of the body's schema, general reason, and the headers that they
# have in addition to those of every answer.
ERRORS: dict[int, tuple[str, str, str, tuple[str, ...]]] = {
    400: ("BadRequest", "ValidationError", "The request is malformed or invalid.", ()),
    401: (
        "Unauthenticated",
        "Error",
        "No credentials, bad ones, or of a kind that is not accepted here.",
        ("WWW-Authenticate",),
    ),
    403: ("Forbidden", "Error", "The role is too low, or the origin is foreign.", ()),
    404: ("NotFound", "Error", "There is no such thing, or it is not visible to the caller.", ()),
    405: ("MethodNotAllowed", "Error", "The path has no such method.", ("Allow",)),
    406: ("NotAcceptable", "Error", "Something other than JSON was asked for.", ()),
    408: ("RequestTimeout", "Error", "The request did not arrive in time.", ()),
    409: ("Conflict", "Conflict", "The state machine or an invariant says no.", ()),
    410: ("Gone", "Error", "It is over.", ()),
    413: ("BodyTooLarge", "Error", "The body is over 1 MiB.", ()),
    414: ("TargetTooLong", "Error", "The request line is over 8,190 bytes.", ()),
    415: (
        "UnsupportedMediaType",
        "Error",
        "The body is not JSON in UTF-8, or it is compressed.",
        (),
    ),
    429: (
        "TooManyRequests",
        "Error",
        "Too often.",
        ("Retry-After", "RateLimit", "RateLimit-Policy"),
    ),
    431: ("HeadersTooLarge", "Error", "The headers are too large or too many.", ()),
    500: ("Crash", "Crash", "A crash. The log has it under the request id.", ()),
    503: ("Busy", "Error", "Too much to do at this moment.", ("Retry-After",)),
}
# Any request may be answered with one of these statuses.
ANY_REQUEST = frozenset({400, 406, 408, 413, 414, 415, 431, 500, 503})

_MESSAGES: Schema = {"type": "array", "items": _TEXT}
_ERROR: Schema = {"type": "string", "description": "One sentence."}
_CODE: Schema = {"$ref": "#/components/schemas/ErrorCode"}

SCHEMAS: dict[str, Schema] = {
    "ErrorCode": {
        "type": "string",
        "enum": [code.value for code in ErrorCode],
        "description": "Which case it is, for programs; API.md lists the codes. Newer releases may add some.",
    },
    "Error": {
        "type": "object",
        "required": ["error", "code"],
        "properties": {"error": _ERROR, "code": _CODE},
    },
    "ValidationError": {
        "type": "object",
        "required": ["error", "code"],
        "properties": {
            "error": _ERROR,
            "code": _CODE,
            "details": {
                "type": "object",
                "description": "Which fields are wrong; not for a request that could not be read at all.",
                "required": ["fieldErrors", "formErrors"],
                "properties": {
                    "fieldErrors": {"type": "object", "additionalProperties": _MESSAGES},
                    "formErrors": _MESSAGES,
                },
            },
        },
    },
    "Conflict": {
        "type": "object",
        "required": ["error", "code"],
        "properties": {
            "error": _ERROR,
            "code": _CODE,
            "ceiling": {
                "type": "string",
                "description": "With the code `ceiling_reached`: which ceiling it is.",
            },
            "status": {
                "$ref": "#/components/schemas/RunStatus",
                "description": "Of a refused transition of a run: the state that it is in.",
            },
            "approvalStatus": {
                "type": "string",
                "description": "Of a refused decision or spending of an approval: how it stands.",
            },
        },
    },
    "Crash": {
        "type": "object",
        "required": ["error", "code", "requestId"],
        "properties": {"error": _ERROR, "code": _CODE, "requestId": _TEXT},
    },
}


def header_refs(*names: str) -> Schema:
    """Returns references to the headers of an answer: the named ones, and those that every answer has."""
    return {name: {"$ref": f"#/components/headers/{name}"} for name in (*EVERYWHERE, *names)}


def error_answer(status: int, reason: str = "") -> Schema:
    answer: Schema = {"$ref": f"#/components/responses/{ERRORS[status][0]}"}
    return {**answer, "description": reason} if reason else answer


def components() -> dict[str, dict[str, Any]]:
    return {
        "headers": {
            name: {"description": says, "required": always, "schema": schema}
            for name, (schema, says, always) in _HEADERS.items()
        },
        "responses": {
            name: {
                "description": when,
                "headers": header_refs(*headers),
                "content": {JSON: {"schema": {"$ref": f"#/components/schemas/{schema}"}}},
            }
            for name, schema, when, headers in ERRORS.values()
        },
        "schemas": SCHEMAS,
    }
