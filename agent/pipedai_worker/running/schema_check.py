"""Checks a JSON document against a JSON Schema (2020-12), as a program with limits of time and memory.

It reads `{"schema": …, "output": …}` from stdin, and writes `{"sentence": …}` (null if the output fits) or `{"pointer":
…, "misfit": …}`. These texts may hold whole secrets, which the worker redacts.
"""

import atexit
import gc
import json
import resource
import sys
from typing import Any

MEMORY_BYTES = 1024 * 1024 * 1024


def main() -> None:
    """Check the document from stdin. The only argument is how many seconds of processor time this may take."""
    # Freezing skips the garbage collection at exit, which a process that ends does not need.
    atexit.register(gc.freeze)
    limit = int(sys.argv[1])
    # SIGXCPU at the first limit shows that the time is used up. A SIGKILL could also mean that no memory is left.
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 1))
    # macOS can't limit a process's memory in this way.
    if sys.platform.startswith("linux"):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    asked = json.loads(sys.stdin.buffer.read())
    try:
        import jsonschema  # noqa: F401 - an old installation may lack it
    except ImportError:
        answer: dict[str, Any] = {"missing": True}
    else:
        answer = judged(asked["schema"], asked["output"])
    json.dump(answer, sys.stdout)


def judged(schema: Any, output: Any) -> dict[str, Any]:
    from jsonschema import Draft202012Validator
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import EMPTY_REGISTRY

    sentence = None
    try:
        validator = Draft202012Validator(schema, registry=EMPTY_REGISTRY)
        for error in validator.iter_errors(output):
            parts = (
                str(part).replace("~", "~0").replace("/", "~1") for part in error.absolute_path
            )
            pointer = "".join(f"/{part}" for part in parts)
            return {"pointer": pointer, "misfit": error.message}
    except Unresolvable:
        sentence = "The output schema refers to a schema that is not part of it."
    except RecursionError:
        sentence = "The output can't be checked, as its schema or itself is nested without an end."
    except MemoryError:
        sentence = "The output can't be checked, as that takes too much memory."
    except Exception as caught:  # such as a pattern that Python can't read
        sentence = f"The output can't be checked, as the schema is none ({type(caught).__name__})."
    return {"sentence": sentence}


if __name__ == "__main__":
    main()
