"""What happens to the schema before and after its operations are made."""

from importlib import import_module
from typing import Any

from django.utils.module_loading import autodiscover_modules

from pipedai.api.schema import answers, reference, security
from pipedai.api.schema.operation import Schema

# The components whose example API.md shows in a section of its own.
_THINGS = {
    "Workspace": "`GET /workspaces`",
    "Environment": "`GET /workspaces/:id/environments`",
    "Member": "`GET /environments/:id/members`",
    "ApiKey": "The API key",
    "Trigger": "The trigger",
    "Run": "The run",
    "Worker": "The worker",
    "Delivery": "The delivery",
    "Enrollment": "The enrollment",
}
# The groups of operations, in the order in which a reader meets them.
_TAGS = (
    "Accounts",
    "Workspaces",
    "Environments",
    "Members",
    "API keys",
    "Triggers",
    "Runs",
    "Webhooks",
    "Workers",
    "Hosts",
    "Worker protocol",
    "Overview",
    "Audit log",
    "Service",
)


def load_descriptions(endpoints: Any) -> Any:
    """Before: have each app's `schema.py` tell of its actions, and the fields of theirs be known."""
    import_module("pipedai.api.schema.fields")
    autodiscover_modules("schema")
    return endpoints


def complete(result: Schema, **_: Any) -> Schema:
    """After: what operations have in common, and the examples of API.md."""
    components = result["components"]
    for kind, parts in answers.components().items():
        components[kind] = dict(sorted({**components.get(kind, {}), **parts}.items()))
    components["securitySchemes"] = security.schemes()
    for name, section in _THINGS.items():
        components["schemas"][name]["examples"] = [reference.thing(section).example]
    for path, operations in result["paths"].items():
        for method, operation in operations.items():
            _add_example(operation, reference.endpoint(method.upper(), path).example)
    result["tags"] = [{"name": name} for name in _tags(result)]
    return result


def _add_example(operation: Schema, example: Any) -> None:
    """API.md shows the first success; of a list one item, which stands in a page here."""
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
    return sorted({tag for one in operations for tag in one["tags"]}, key=_TAGS.index)
