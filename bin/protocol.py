"""`python -m bin.protocol` writes the OpenAPI document's part about the worker protocol into the worker's package, for
the conformance kit (docs/conformance.md). A test fails if that file differs from the document.
"""

import json
import os
from typing import Any

from pipedai.env import BASE_DIR

FILE = BASE_DIR / "agent" / "pipedai_worker" / "conformance" / "openapi.json"
_TAG = "Worker protocol"


def part_of(document: dict[str, Any]) -> str:
    """Returns the bodies and parameters of the protocol's requests, and the schemas to which they refer, as text."""
    paths = {
        path: {
            method: _bare(
                {
                    "parameters": [
                        each for each in told.get("parameters", ()) if each["in"] == "query"
                    ],
                    **({"requestBody": told["requestBody"]} if "requestBody" in told else {}),
                }
            )
            for method, told in operations.items()
            if _TAG in told["tags"]
        }
        for path, operations in document["paths"].items()
    }
    paths = {path: operations for path, operations in paths.items() if operations}
    schemas = document["components"]["schemas"]
    kept: dict[str, Any] = {}
    while missing := [
        name
        for name in schemas
        if f'schemas/{name}"' in json.dumps([paths, kept]) and name not in kept
    ]:
        kept |= {name: _bare(schemas[name]) for name in missing}
    part = {"openapi": document["openapi"], "paths": paths, "components": {"schemas": kept}}
    return json.dumps(part, indent=1) + "\n"


def _bare(value: Any) -> Any:
    """Returns a part of the document without the texts that are meant for people."""
    if isinstance(value, list):
        return [_bare(each) for each in value]
    if not isinstance(value, dict):
        return value
    prose = {"example", "description"} if isinstance(value.get("description", ""), str) else set()
    return {name: _bare(each) for name, each in value.items() if name not in prose}


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "pipedai.settings")
    import django

    django.setup()
    from pipedai.api import service

    FILE.write_text(part_of(json.loads(service.document())))


if __name__ == "__main__":
    main()
