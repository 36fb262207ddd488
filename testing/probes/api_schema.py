"""Reads the operations of the API's checked-in schema."""

import json
import re
from typing import Any

from pipedai.api import openapi
from testing.world.routes import Route

SCHEMA: dict[str, Any] = json.loads(openapi.FILE.read_bytes())
# The keys are a method and a path, such as "GET /triggers/{triggerId}".
OPERATIONS: dict[str, Any] = {
    f"{method.upper()} {path}": operation
    for path, methods in SCHEMA["paths"].items()
    for method, operation in methods.items()
}


def operation_of(route: Route) -> Any:
    """Returns the schema's operation for a route."""
    path = re.sub(r"<uuid:(\w+)>", lambda m: "{" + camel(m[1]) + "}", route.route)
    return OPERATIONS[f"{route.method} /{path}"]


def camel(name: str) -> str:
    """Returns the resolver's name in the spelling of the schema."""
    first, *rest = name.split("_")
    return first + "".join(word.title() for word in rest)
