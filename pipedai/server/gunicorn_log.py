"""Sends gunicorn's own log lines through our logging."""

# mypy: disallow-untyped-calls=False

from typing import Any

from gunicorn.glogging import Logger

from pipedai.logs import log_start


class ChainLogger(Logger):
    """gunicorn's logger without handlers of its own, so that its lines go to the handlers of the root logger."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        self.error_log.propagate = True
        # gunicorn makes its logger once for each start, before it logs anything. So this is the place to log that the
        # process starts.
        log_start("web")

    def _set_handler(self, *_args: Any, **_kwargs: Any) -> None:
        """Add no handler, so that the root logger's handlers alone write gunicorn's lines."""
