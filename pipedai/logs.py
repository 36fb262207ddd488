"""Sets up logging: every line, ours or a library's, goes to stdout through one redacting chain."""

import logging
import sys
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from pipedai.api.request_id import current_request_id
from pipedai.redaction import escape_control, redact_name, redact_named, redact_text

# They say too much: each request (the access log has it), each statement with its values.
_LOUD = {
    "django.request": logging.ERROR,
    "django.db.backends": logging.INFO,
    # A traceback for whatever Host anybody sends; the access log has the 400.
    "django.security.DisallowedHost": logging.CRITICAL,
    "httpx": logging.WARNING,
    "httpcore": logging.WARNING,
    "asyncio": logging.WARNING,
    "urllib3": logging.WARNING,
}

_add_time = structlog.processors.TimeStamper(fmt="iso", utc=True, key="time")

# What an event passes through before stdlib's logging has it. Loggers in use keep this list, so it is changed in place.
_processors: list[Processor] = []


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger; an event is a constant sentence with named values: `info("claimed", run=id)`."""
    return structlog.stdlib.get_logger(name)


def configure(*, form: str, level: str) -> None:
    """Send all logging of this process to stdout, as JSON lines (`json`) or for people (`text`).

    May be called again; the last call counts.
    """
    before: list[Processor] = [
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        _add_time,
        _add_request_id,
    ]
    _processors[:] = [
        structlog.stdlib.filter_by_level,
        *before,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
    ]
    structlog.configure(
        processors=_processors,
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = _StdoutHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=before,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                redact_event,
                *_renderers(form),
            ],
        )
    )
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _StdoutHandler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    logging.getLogger("django.request").addFilter(_is_news)
    for name, least in _LOUD.items():
        logging.getLogger(name).setLevel(max(least, root.level))
    logging.captureWarnings(True)
    # No line tells these, and each record would look for them.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def log_line(name: str, level: int, event: str, fields: Mapping[str, Any]) -> None:
    """Log what `get_logger(name)` does of an event, with two thirds of its CPU: for each request's line."""
    logger = logging.getLogger(name)
    if not logger.isEnabledFor(level):
        return
    method = logging.getLevelName(level).lower()
    said: EventDict = {"event": event, **fields, "logger": name, "level": method}
    said = _add_request_id(logger, method, _add_time(logger, method, said))
    record = logging.LogRecord(name, level, "", 0, said, None, None)
    # As structlog's wrap_for_formatter marks what is no library's.
    record.__dict__ |= {"_logger": logger, "_name": method}
    logger.handle(record)


def redact_event(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Structlog processor: no secret or control character leaves in a key, value or traceback."""
    return {
        redact_name(key): (
            escape_control(redact_text(str(value)), keep_lines=True)
            if key in {"exception", "stack"}
            else redact_named(str(key), value)
        )
        for key, value in event.items()
    }


def _is_news(record: logging.LogRecord) -> bool:
    """Whether the access log does not have it: a 503 is an answer that we chose to give, not a crash."""
    return getattr(record, "status_code", 0) != HTTPStatus.SERVICE_UNAVAILABLE


def _add_request_id(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    if request_id := current_request_id.get():
        event.setdefault("request_id", request_id)
    return event


def _indent_traceback(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    # An exception's message may hold line feeds: indented, it can't pass for a line of its own.
    for key in ("exception", "stack"):
        if key in event:
            event[key] = "\n".join(f"    {line}" for line in event[key].splitlines())
    return event


def _renderers(form: str) -> list[Processor]:
    if form == "json":
        return [structlog.processors.JSONRenderer()]
    return [
        _indent_traceback,
        structlog.dev.ConsoleRenderer(
            colors=sys.stdout.isatty(),
            timestamp_key="time",
            exception_formatter=structlog.dev.plain_traceback,
        ),
    ]


class _StdoutHandler(logging.StreamHandler[TextIO]):
    """Writes to whatever sys.stdout is now, as tests and commands replace it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stdout
