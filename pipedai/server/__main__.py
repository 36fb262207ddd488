"""Runs the web process as `python -m pipedai.server [OPTIONS OF GUNICORN]`, after checking its settings."""

import os
import sys
from pathlib import Path

from pipedai.server import gunicorn_conf


def main() -> None:
    """Serve until SIGTERM. An unfit setting ends the process with one sentence."""
    # gunicorn reads WEB_CONCURRENCY when it is imported. An empty value or a word would end it with a traceback.
    os.environ["WEB_CONCURRENCY"] = str(gunicorn_conf.workers)
    # We check here as well, because gunicorn's --check-config would show unfit settings as a traceback.
    gunicorn_conf.refuse_unfit_settings()
    from gunicorn.app.wsgiapp import run

    # gunicorn starts its successor under this name when it gets SIGUSR2.
    program = str(Path(sys.executable).with_name("gunicorn"))
    config = f"python:{gunicorn_conf.__name__}"
    sys.argv = [program, "-c", config, *sys.argv[1:], "pipedai.asgi:application"]
    run()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
