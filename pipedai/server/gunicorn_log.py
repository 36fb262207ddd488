"""Sends gunicorn's own log lines through our logging."""

# mypy: disallow-untyped-calls=False

from typing import Any

from gunicorn.glogging import Logger


class ChainLogger(Logger):
    """gunicorn's logger without handlers of its own, so that its lines go to the handlers of the root logger."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        self.error_log.propagate = True

    def _set_handler(self, *_args: Any, **_kwargs: Any) -> None:
        """Add no handler, so that the root logger's handlers alone write gunicorn's lines."""
