"""Has gunicorn's own log lines go through our logging."""

# mypy: disallow-untyped-calls=False

from typing import Any

from gunicorn.glogging import Logger


class ChainLogger(Logger):
    """gunicorn's logger without handlers of its own: what it says reaches the root logger."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        self.error_log.propagate = True

    def _set_handler(self, *_args: Any, **_kwargs: Any) -> None:
        """Add none."""
