"""`python -m pipedai.server [OPTIONS OF GUNICORN]`: the web process, once its settings are found fit."""

import os
import sys
from pathlib import Path

from pipedai.server import gunicorn_conf


def main() -> None:
    """Serve until SIGTERM. A setting that is unfit ends it with one sentence."""
    # gunicorn reads it as it is imported, and ends in a traceback at what is empty or no number.
    os.environ["WEB_CONCURRENCY"] = str(gunicorn_conf.workers)
    # gunicorn's --check-config would show a traceback of it.
    gunicorn_conf.refuse_unfit_settings()
    from gunicorn.app.wsgiapp import run

    # By its own name, under which it starts its successor at SIGUSR2.
    program = str(Path(sys.executable).with_name("gunicorn"))
    config = f"python:{gunicorn_conf.__name__}"
    sys.argv = [program, "-c", config, *sys.argv[1:], "pipedai.asgi:application"]
    run()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
