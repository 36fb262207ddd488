"""Runs the web process as `python -m pipedai.server [OPTIONS OF GUNICORN]`, after checking its settings."""

import os
import sys
from pathlib import Path

from pipedai.server import gunicorn_conf


def main() -> None:
    # gunicorn reads WEB_CONCURRENCY when it is imported, and would end with a traceback if the value is no number. So
    # the variable gets a valid number first.
    os.environ["WEB_CONCURRENCY"] = str(gunicorn_conf.workers)
    # The settings are checked before gunicorn starts, because gunicorn's --check-config would show unfit settings as a
    # traceback.
    gunicorn_conf.refuse_unfit_settings()
    from gunicorn.app.wsgiapp import run

    # At SIGUSR2 gunicorn starts its successor by the name in sys.argv, so this must be the path of a program that
    # exists.
    program = str(Path(sys.executable).with_name("gunicorn"))
    config = f"python:{gunicorn_conf.__name__}"
    sys.argv = [program, "-c", config, *sys.argv[1:], "pipedai.asgi:application"]
    run()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
