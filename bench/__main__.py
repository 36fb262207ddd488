"""The command line of bin/bench."""

import sys
from importlib import import_module

from django.core.exceptions import ImproperlyConfigured

from bench.arguments import parse
from bench.failure import BenchFailed
from bench.figures import write_json
from pipedai.embedded.programs import EmbeddedPostgresError


def main() -> int:
    """Run one benchmark, and return the exit code."""
    options = vars(parse(sys.argv[1:]))
    benchmark, file = options.pop("benchmark"), options.pop("json")
    try:
        import_module("pipedai.settings")  # so that bad settings fail before anything starts
        result = benchmark.run(**options, say=_say)
        if file is not None:
            write_json(file, result)
        print()
        benchmark.show(result)
    except (BenchFailed, EmbeddedPostgresError, ImproperlyConfigured, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
