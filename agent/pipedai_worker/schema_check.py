"""Checks a JSON document against a JSON Schema (2020-12), as a program of its own with limits of time and memory.

It reads `{"schema": …, "output": …}` from stdin and writes `{"sentence": …}`, which is null if the output fits. It
loads no schema from anywhere: a reference leads into the schema itself or to the standard's own ones.
"""

from __future__ import annotations

import json
import resource
import sys
from itertools import islice
from typing import Any

MEMORY_BYTES = 1024 * 1024 * 1024
LONGEST_POINTER = 80


def main() -> None:
    """Check what stdin holds. The only argument is the number of seconds of processor time that may be used."""
    limit = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
    # macOS has no such limit.
    if sys.platform.startswith("linux"):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    asked = json.loads(sys.stdin.buffer.read())
    try:
        import jsonschema  # noqa: F401 - an old installation may lack it
    except ImportError:
        answer: dict[str, Any] = {"missing": True}
    else:
        answer = {"sentence": complaint(asked["schema"], asked["output"])}
    json.dump(answer, sys.stdout)


def complaint(schema: Any, output: Any) -> str | None:
    """Return one sentence that says where the output does not fit, or None if it does."""
    from jsonschema import Draft202012Validator
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import EMPTY_REGISTRY

    try:
        validator = Draft202012Validator(schema, registry=EMPTY_REGISTRY)
        errors = list(islice(validator.iter_errors(output), 1))
    except Unresolvable:
        return "The output schema refers to a schema that is not part of it."
    except RecursionError:
        return "The output can't be checked, as its schema or itself is nested without an end."
    except MemoryError:
        return "The output can't be checked, as that takes too much memory."
    except Exception as caught:  # a pattern that Python can't read, and the like
        return f"The output can't be checked, as the schema is none ({type(caught).__name__})."
    if not errors:
        return None
    error = errors[0]
    pointer = "".join(f"/{_escaped(part)}" for part in error.absolute_path)
    if len(pointer) > LONGEST_POINTER:
        pointer = pointer[: LONGEST_POINTER - 1] + "…"
    place = f"At {pointer}" if pointer else "As a whole"
    return f"{place}, the output does not fit its schema: {error.message}."


def _escaped(part: object) -> str:
    return str(part).replace("~", "~0").replace("/", "~1")


if __name__ == "__main__":
    main()
