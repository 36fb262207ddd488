"""Reads the operations of the API's schema."""

import json
import re
from typing import Any

from pipedai.api import service
from testing.world.routes import Route

SCHEMA: dict[str, Any] = json.loads(service.document())
# The keys are a method and a path, such as "GET /triggers/{id}".
OPERATIONS: dict[str, Any] = {
    f"{method.upper()} {path}": operation
    for path, methods in SCHEMA["paths"].items()
    for method, operation in methods.items()
}


_BY_ROUTE = {re.sub(r"{\w+}", "{}", name): operation for name, operation in OPERATIONS.items()}


def operation_of(route: Route) -> Any:
    """What the schema says of a route. Raises LookupError if it knows none such."""
    try:
        return _BY_ROUTE[_name_of(route)]
    except KeyError:
        raise LookupError(
            f"the schema has no {_name_of(route)}: see To the OpenAPI schema in CONTRIBUTING.md."
        ) from None


def is_list(route: Route) -> bool:
    """Whether a route answers a page of items."""
    answers = _BY_ROUTE.get(_name_of(route), {}).get("responses", {})
    contents = answers.get("200", {}).get("content", {}).values()
    return any(each["schema"].get("$ref", "").endswith("Page") for each in contents)


def _name_of(route: Route) -> str:
    path = re.sub(r"<uuid:\w+>", "{}", route.route)
    return f"{route.method} /{path}"
