"""Completes the OpenAPI schema. drf-spectacular calls `complete` after it has made all operations."""

from typing import Any

from django.conf import settings
from rest_framework.authentication import BaseAuthentication
from uritemplate import variables

from pipedai.api.authentication import AUTH_COOKIE, BearerAuthentication, RefuseTheRest
from pipedai.api.schema import answers, reference
from pipedai.api.schema.operation import Schema

_BEARERS = {
    "pwk": ("apiKey", "An API key: external systems and scripts, in its one environment."),
    "wkt": ("workerToken", "A worker's token, which registering gives: the worker protocol."),
    "hos": (
        "hostKey",
        "A host's key, which enrolling gives: the workers that the host brought in.",
    ),
    "wrk": ("registrationToken", "A registration token, which registers one worker, once."),
}


def registration_token() -> dict[str, list[str]]:
    return {_BEARERS["wrk"][0]: []}


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
        "name": AUTH_COOKIE,
        "description": "A person's session in a browser: the cookie that register and login set.",
    }
    return {"session": session, **bearers}


# The sections of API.md that show an example of a component, by the component's name.
_THINGS = {
    "Workspace": "`GET /workspaces`",
    "Environment": "`GET /workspaces/:id/environments`",
    "Member": "`GET /environments/:id/members`",
    "ApiKey": "The API key",
    "Trigger": "The trigger",
    "Run": "The run",
    "Approval": "The approval",
    "Worker": "The worker",
    "Pool": "The pool",
    "Delivery": "The delivery",
    "Enrollment": "The enrollment",
    "Incident": "The incident",
    "Channel": "The channel",
    "Connection": "The connection",
    "Source": "The source",
    "Event": "The event",
    "Budget": "The budget",
    "Notice": "The notice",
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
    """Returns the schema with what all operations share, and with the examples of API.md."""
    components = result["components"]
    for kind, parts in answers.components().items():
        components[kind] = dict(sorted({**components.get(kind, {}), **parts}.items()))
    components["securitySchemes"] = schemes()
    for name, section in _THINGS.items():
        components["schemas"][name]["examples"] = [reference.thing(section).example]
    result["paths"] = _as_in_the_reference(result["paths"])
    result["tags"] = [{"name": name} for name in _tags(result)]
    return result


def _as_in_the_reference(paths: Schema) -> Schema:
    """Returns the operations in the order of API.md, with its names of path parameters, its examples, links to it."""
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
    """Adds the example of API.md to the success answer of lowest status, for a list as the item of a page."""
    if example is None:
        return
    status = min(status for status in operation["responses"] if status < "300")
    contents = operation["responses"][status].get("content", {})
    if not contents:
        return
    (content,) = contents.values()
    is_page = content["schema"].get("$ref", "").endswith("Page")
    content["example"] = {"items": [example], "nextCursor": None} if is_page else example


def _tags(result: Schema) -> list[str]:
    operations = (one for path in result["paths"].values() for one in path.values())
    used = {tag for one in operations for tag in one["tags"]}
    if unknown := used - set(_TAGS):
        raise LookupError(f"{__name__}._TAGS has no {sorted(unknown)}, which viewsets name as tag")
    return [tag for tag in _TAGS if tag in used]
