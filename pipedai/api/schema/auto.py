"""Makes the OpenAPI operation of an action, from its viewset's declarations and from its `@Operation`, with the errors
and the headers of answers that all operations share.

drf-spectacular calls `complete` after it has made all operations.
"""

# drf-spectacular has types for only a part of its functions, so mypy must allow calls of untyped functions here.
# mypy: disallow-untyped-calls=False

from collections.abc import Iterator
from functools import cached_property
from typing import Any

from django.conf import settings
from drf_spectacular.extensions import OpenApiSerializerFieldExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ResolvedComponent
from rest_framework.authentication import BaseAuthentication
from uritemplate import variables

from pipedai.api.authentication import (
    AUTH_COOKIE,
    SAFE_METHODS,
    BearerAuthentication,
    RefuseTheRest,
    cookie_name,
)
from pipedai.api.error_codes import ErrorCode
from pipedai.api.fields import AmountField, MoneyField, TextField
from pipedai.api.schema import reference
from pipedai.api.schema.operation import (
    JSON,
    PAGE,
    REGISTRATION_TOKEN,
    Operation,
    Schema,
    of_filters,
    operation_of,
)
from pipedai.api.serializers import Body, StrictBody
from pipedai.api.throttling import Rate
from pipedai.api.views import ApiViewSet, IsPublic

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

# The error answers by status: name of the component, name of the body's schema, general reason, and the headers that
# the answer has in addition to those of every answer.
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


def _body_of_error(*always: str, **more: Schema) -> Schema:
    """Returns the schema of an error's body, which may have `more` fields, and has those in `always`."""
    fields = {"error": _ERROR, "code": _CODE, **more}
    return {"type": "object", "required": ["error", "code", *always], "properties": fields}


SCHEMAS: dict[str, Schema] = {
    "ErrorCode": {
        "type": "string",
        "enum": [code.value for code in ErrorCode],
        "description": "Which case it is, for programs; API.md lists the codes. Newer releases may add some.",
    },
    "Error": _body_of_error(),
    "ValidationError": _body_of_error(
        details={
            "type": "object",
            "description": "Which fields are wrong; not for a request that could not be read at all.",
            "required": ["fieldErrors", "formErrors"],
            "properties": {
                "fieldErrors": {"type": "object", "additionalProperties": _MESSAGES},
                "formErrors": _MESSAGES,
            },
        },
    ),
    "Conflict": _body_of_error(
        ceiling={
            "type": "string",
            "description": "With the code `ceiling_reached`: which ceiling it is.",
        },
        status={
            "$ref": "#/components/schemas/RunStatus",
            "description": "Of a refused transition of a run: the state that it is in.",
        },
        approvalStatus={
            "type": "string",
            "description": "Of a refused decision or spending of an approval: how it stands.",
        },
    ),
    "Crash": _body_of_error("requestId", requestId=_TEXT),
}


def header_refs(*names: str) -> Schema:
    """Returns references to the headers of an answer: the named ones, and those that every answer has."""
    return {name: {"$ref": f"#/components/headers/{name}"} for name in (*EVERYWHERE, *names)}


def error_answer(status: int, reason: str = "") -> Schema:
    answer: Schema = {"$ref": f"#/components/responses/{ERRORS[status][0]}"}
    return {**answer, "description": reason} if reason else answer


def shared_components() -> dict[str, dict[str, Any]]:
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


_DECIMAL = r"^\d+(\.\d+)?$"


class Text(OpenApiSerializerFieldExtension):
    """Describes a TextField. If it trims a request's text, the pattern demands a character that is no space."""

    target_class = TextField
    match_subclasses = True

    def map_serializer_field(self, auto_schema: Any, direction: str) -> Schema:
        field = self.target
        trimmed = field.trim_whitespace and not field.allow_blank and direction == "request"
        return {"type": "string", "pattern": r"\S"} if trimmed else {"type": "string"}


class Money(OpenApiSerializerFieldExtension):
    """Describes a MoneyField, which is a decimal string in answers, and a string or a number in requests."""

    target_class = MoneyField

    def map_serializer_field(self, auto_schema: Any, direction: str) -> Schema:
        text: Schema = {"type": "string", "pattern": _DECIMAL}
        if direction == "response":
            return text
        number: Schema = {"type": "number", "minimum": 0, "maximum": int(MoneyField.MAX)}
        return {"oneOf": [number, text]}


class Amount(OpenApiSerializerFieldExtension):
    target_class = AmountField

    def map_serializer_field(self, auto_schema: Any, direction: str) -> Schema:
        least = "exclusiveMinimum" if self.target.above_zero else "minimum"
        number: Schema = {"type": "number", least: 0, "maximum": int(AmountField.MAX)}
        text: Schema = {"type": "string", "pattern": r"^[0-9]{1,8}(\.[0-9]{1,6})?$"}
        return {"oneOf": [number, text]}


# The descriptions of successful answers, by status, for which API.md gives no description.
_SAID = {200: "Done.", 201: "Made.", 204: "Done; there is nothing to say."}
# The words for the length of a rate limit's window, by that length in seconds.
_WINDOWS = {5: "in 5 seconds", 60: "a minute", 3600: "an hour", 86_400: "a day"}


class ApiSchema(AutoSchema):
    view: ApiViewSet  # type: ignore[override]

    @property
    def _operation(self) -> Operation:
        return operation_of(type(self.view), self.view.action)

    @cached_property
    def _section(self) -> reference.Section:
        return reference.endpoint(self.method, self.path.removeprefix("/api/v1"))

    def get_operation_id(self) -> str:
        return self._operation.id

    def get_summary(self) -> str:
        return self._operation.summary

    def get_tags(self) -> list[str]:
        return [self.view.tag]

    def get_description(self) -> str:  # type: ignore[override]
        rates = "; ".join(
            f"{rate.limit} {_WINDOWS[rate.seconds]} (`{rate.name}`)" for rate in self._rates()
        )
        return self._section.prose + (f"\n\nAt most {rates}." if rates else "")

    def get_extensions(self) -> Schema:
        role = self._role()
        audit = self._section.audit
        return {
            **({"x-required-role": role.value} if role else {}),
            **({"x-audit-actions": audit} if audit else {}),
        }

    def get_auth(self) -> list[dict[str, list[str]]]:
        """Returns the security requirements. An empty one, of a public action, means that no credential is needed."""
        if self._operation.security:
            return [dict(one) for one in self._operation.security]
        asked = map(requirement, self.view.get_authenticators())
        accepted = [one for one in asked if one is not None]
        return [{}, *accepted] if self._is_public() else accepted

    def _get_parameters(self) -> list[Schema]:
        operation = self._operation
        found = list(operation.parameters)
        if operation.filters:
            found += of_filters(operation.filters, self._section.fields)
        if operation.items:
            found += PAGE
        an_id = {"in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}}
        return [*({"name": name, **an_id} for name in variables(self.path)), *found]

    def _get_request_body(self, direction: str = "request") -> Schema | None:
        operation = self._operation
        if operation.body is None:
            return None
        body = operation.body(partial=operation.partial)
        component = self.resolve_serializer(body, "request")
        closed = {"additionalProperties": False} if isinstance(body, StrictBody) else {}
        schema = component.ref if component.schema else {"type": "object", **closed}
        content: Schema = {"schema": schema}
        if operation.example is not None:
            content["example"] = dict(operation.example)
        required = bool(component.schema and component.schema.get("required"))
        return {"content": {JSON: content}, "required": required}

    def _get_response_bodies(self, direction: str = "response") -> Schema:
        successes = [200] if self._operation.items else list(self._operation.answers)
        answers = {status: self._success(status) for status in successes}
        answers |= {status: error_answer(status, said) for status, said in self._errors().items()}
        return {str(status): answers[status] for status in sorted(answers)}

    def _success(self, status: int) -> Schema:
        operation = self._operation
        headers = header_refs(*operation.answer_headers.get(status, ()))
        said = self._section.answers[status] or _SAID[status]
        answer: Schema = {"description": said, "headers": headers}
        if operation.items:
            schema = self._page(operation.items())
        elif (serializer := operation.answers[status]) is not None:
            schema = self.resolve_serializer(serializer(), "response").ref
        else:
            return answer
        return {**answer, "content": {operation.media_type: {"schema": schema}}}

    def _page(self, serializer: Any) -> Schema:
        item = self.resolve_serializer(serializer, "response")
        total = {"type": "integer", "description": "How many there are, with `include=total`."}
        counts = {
            "type": "object",
            "description": "How many there are of some kinds, with `include=counts`.",
            "properties": {name: {"type": "integer"} for name in self._operation.counts},
        }
        page = ResolvedComponent(
            name=f"{item.name}Page",
            type=ResolvedComponent.SCHEMA,
            object=type(serializer),
            schema={
                "type": "object",
                "required": ["items", "nextCursor"],
                "properties": {
                    "items": {"type": "array", "items": item.ref},
                    "nextCursor": {
                        "type": ["string", "null"],
                        "description": "The `cursor` of the next page; null on the last.",
                    },
                    **({"total": total} if self._operation.total else {}),
                    **({"counts": counts} if self._operation.counts else {}),
                },
            },
        )
        self.registry.register_on_missing(page)
        return dict(page.ref)

    def _errors(self) -> dict[int, str]:
        """Returns the reason of each error status that this operation may answer; "" stands for the description in
        `ERRORS`. Most statuses follow from the viewset. API.md gives the reasons, and the statuses that only services
        raise.
        """
        role = self._role()
        takes_cookies = any("session" in one for one in self.get_auth())
        changes = self.method not in SAFE_METHODS
        checks_origin, checks_role = changes and takes_cookies, role is not None and role.rank > 0
        statuses = set(ANY_REQUEST)
        if self.get_auth() not in ([], [{}]):
            statuses.add(401)
        if checks_origin or checks_role:
            statuses.add(403)
        if "{" in self.path and not self._is_public():
            statuses.add(404)
        is_metered = self.view.is_metered(self.method) and bool(self.view.get_authenticators())
        if is_metered or any(self._rates()):
            statuses.add(429)
        told = {status: said for status, said in self._section.answers.items() if status >= 400}
        if unexplained := {status for status in told.keys() - statuses if not told[status]}:
            raise LookupError(
                f"API.md says that {self._operation.endpoint} answers {unexplained}, which does not follow from its "
                "viewset: leave it out, or say what it means."
            )
        return dict.fromkeys(statuses, "") | told

    def _rates(self) -> Iterator[Rate]:
        action = self.view.action
        yield from (throttle.rate for throttle in self.view.throttles.get(action, ()))
        if rate := getattr(self.view, "environment_rates", {}).get(action):
            yield rate

    def _role(self) -> Any:
        return getattr(self.view.permissions[self.view.action], "role", None)

    def _is_public(self) -> bool:
        return self.view.permissions[self.view.action] is IsPublic

    def _map_serializer_field(
        self, field: Any, direction: str, bypass_extensions: bool = False
    ) -> Schema | None:
        schema: Schema | None = super()._map_serializer_field(field, direction, bypass_extensions)
        if schema and schema.get("oneOf", [None])[0] == {}:
            # Such a oneOf means "any value, or null". But null matches both of its parts, and oneOf demands exactly one
            # match.
            del schema["oneOf"]
        return schema

    def _is_whole_body(self, serializer: Any) -> bool:
        """Whether the serializer is for the whole body of the operation, and not for an object inside of the body."""
        return isinstance(serializer, Body) and type(serializer) is self._operation.body

    def _get_serializer_name(
        self, serializer: Any, direction: str, bypass_extensions: bool = False
    ) -> str:
        if self._is_whole_body(serializer):
            identifier = self._operation.id
            return f"{identifier[0].upper()}{identifier[1:]}Body"
        return type(serializer).__name__.removesuffix("Serializer")

    def _map_serializer(
        self, serializer: Any, direction: str, bypass_extensions: bool = False
    ) -> Schema:
        schema: Schema = super()._map_serializer(serializer, direction, bypass_extensions)
        if not isinstance(serializer, Body):
            return schema
        # The docstring of a body's serializer tells only which endpoint takes the body, so it is left out.
        schema.pop("description", None)
        texts = self._section.fields if self._is_whole_body(serializer) else {}
        for name, field in schema.get("properties", {}).items():
            # Defaults are left out of the schema, and only a field's description tells its default. Some client
            # generators would make a field with a default required, and others would send the default with every
            # change.
            field.pop("default", None)
            # The label and the help text of a field are the console's. API.md says here what the field means.
            field.pop("title", None)
            if said := texts.get(name):
                field.pop("description", None)
                field["description"] = said
        if isinstance(serializer, StrictBody):
            schema["additionalProperties"] = False
        return schema


_BEARERS = {
    "pwk": ("apiKey", "An API key: external systems and scripts, in its one environment."),
    "wkt": ("workerToken", "A worker's token, which registering gives: the worker protocol."),
    "hos": (
        "hostKey",
        "A host's key, which enrolling gives: the workers that the host brought in.",
    ),
    "wrk": (REGISTRATION_TOKEN, "A registration token, which registers one worker, once."),
}


def requirement(authenticator: BaseAuthentication) -> dict[str, list[str]] | None:
    """Returns the security requirement of an authentication class, or None for `RefuseTheRest`, which accepts none."""
    if isinstance(authenticator, RefuseTheRest):
        return None
    if isinstance(authenticator, BearerAuthentication):
        return {_BEARERS[authenticator.prefix][0]: []}
    return {"session": []}


def schemes() -> dict[str, Any]:
    bearers: dict[str, Schema] = {
        name: {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": f"{prefix}_…",
            "description": description,
        }
        for prefix, (name, description) in _BEARERS.items()
    }
    session: Schema = {
        "type": "apiKey",
        "in": "cookie",
        "name": cookie_name(AUTH_COOKIE),
        "description": "A person's session in a browser: the cookie that register and login set.",
    }
    return {"session": session, **bearers}


# The sections of API.md with a component's example, by the component's name, if the section has another name.
_SHOWN_IN_LISTS = {
    "Workspace": "`GET /workspaces`",
    "Environment": "`GET /workspaces/:id/environments`",
    "Member": "`GET /environments/:id/members`",
}
# The groups of operations, in the order in which documentation shows them.
_TAGS = (
    "Accounts",
    "Workspaces",
    "Environments",
    "Members",
    "API keys",
    "Triggers",
    "Connections",
    "Events",
    "Runs",
    "Approvals",
    "Budgets",
    "Files",
    "Webhooks",
    "Incidents",
    "Notices",
    "Workers",
    "Pools",
    "Hosts",
    "Worker protocol",
    "Overview",
    "Audit log",
    "Service",
)


def complete(result: Schema, **_: Any) -> Schema:
    """Returns the schema, completed by the parts that all operations share and by the examples of API.md."""
    components = result["components"]
    for kind, parts in shared_components().items():
        components[kind] = dict(sorted({**components.get(kind, {}), **parts}.items()))
    components["securitySchemes"] = schemes()
    for name, section in {**reference.things(), **_SHOWN_IN_LISTS}.items():
        if name in components["schemas"]:
            components["schemas"][name]["examples"] = [reference.section(section).example]
    result["paths"] = _as_in_the_reference(result["paths"])
    operations = (one for path in result["paths"].values() for one in path.values())
    used = {tag for one in operations for tag in one["tags"]}
    if unknown := used - set(_TAGS):
        raise LookupError(f"{__name__}._TAGS has no {sorted(unknown)}, which viewsets name as tag")
    result["tags"] = [{"name": tag} for tag in _TAGS if tag in used]
    return result


def _as_in_the_reference(paths: Schema) -> Schema:
    """Returns the operations in the order of API.md, with its path parameters' names and examples, and links to it."""
    told = [
        (reference.endpoint(method.upper(), path), method, operation)
        for path, operations in paths.items()
        for method, operation in operations.items()
    ]
    found: Schema = {}
    for section, method, operation in sorted(told, key=lambda one: one[0].place):
        named = [each for each in operation.get("parameters", ()) if each["in"] == "path"]
        for parameter, name in zip(named, variables(section.path), strict=True):
            parameter["name"] = name
        _add_example(operation, section.example)
        operation["externalDocs"] = {
            "description": "The section in API.md",
            "url": f"{settings.PUBLIC_URL}/api/docs/API.md#{section.anchor}",
        }
        found.setdefault(section.path, {})[method] = operation
    return found


def _add_example(operation: Schema, example: Any) -> None:
    """Adds the example of API.md to the success of lowest status. For a list the example becomes the item of a page."""
    if example is None:
        return
    status = min(status for status in operation["responses"] if status < "300")
    contents = operation["responses"][status].get("content", {})
    if not contents:
        return
    (content,) = contents.values()
    is_page = content["schema"].get("$ref", "").endswith("Page")
    content["example"] = {"items": [example], "nextCursor": None} if is_page else example
