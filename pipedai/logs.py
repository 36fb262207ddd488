"""Sets up logging. Every line, ours or a library's, goes to stdout after secrets are redacted from it."""

import json
import logging
import sys
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from pipedai.ids import current_request_id
from pipedai.redaction import escape_control, redact_name, redact_named, redact_text
from pipedai.version import VERSION

# Libraries' loggers that write too much, with the lowest level whose lines are kept. Some write a line for each
# request, which the access log has already, or for each SQL statement with its values.
_LOUD = {
    "django.request": logging.ERROR,
    "django.db.backends": logging.INFO,
    # Django logs a traceback for every request with an unknown Host, or with too many fields. The access log shows the
    # answer 400 anyway.
    "django.security.DisallowedHost": logging.CRITICAL,
    "django.security.TooManyFieldsSent": logging.CRITICAL,
    "flit_core": logging.WARNING,
    "httpx": logging.WARNING,
    "httpcore": logging.WARNING,
    "asyncio": logging.WARNING,
    "urllib3": logging.WARNING,
}

_add_time = structlog.processors.TimeStamper(fmt="iso", utc=True, key="time")

# The processors that change an event before Python's logging gets it. The list is changed in place, because loggers
# that are in use keep a reference to it.
_processors: list[Processor] = []


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    return structlog.stdlib.get_logger(name)


def log_start(process: str) -> None:
    get_logger(__name__).info("process.started", process=process, version=VERSION)


def configure(*, form: str, level: str) -> None:
    """Send all log lines to stdout, as `json` or as `text` for people. The last call counts."""
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
    global _json_handler
    _json_handler = handler if form == "json" else None
    root.setLevel(level)
    logging.getLogger("django.request").addFilter(_is_news)
    for name, least in _LOUD.items():
        logging.getLogger(name).setLevel(max(least, root.level))
    logging.captureWarnings(True)
    # No log line shows the thread and the process, so logging need not spend time on finding them out.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def log_line(name: str, level: int, event: str, fields: Mapping[str, Any]) -> None:
    """Log as `get_logger(name)` would, in a third of the CPU time, for the one line of each request."""
    logger = logging.getLogger(name)
    if not logger.isEnabledFor(level):
        return
    method = logging.getLevelName(level).lower()
    said: EventDict = {"event": event, **fields, "logger": name, "level": method}
    said = _add_request_id(logger, method, _add_time(logger, method, said))
    handler = _json_handler
    if handler is not None and logging.root.handlers == [handler] and not logger.handlers:
        # Only our handler takes the line, so no log record is needed. See docs/decisions/fast-paths.md.
        handler.write(_encode(redact_event(logger, method, said)))
        return
    record = logging.LogRecord(name, level, "", 0, said, None, None)
    # These two attributes tell structlog's formatter that the record is ours and not a library's.
    record.__dict__ |= {"_logger": logger, "_name": method}
    logger.handle(record)


def redact_event(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Structlog processor: removes secrets and control characters from an event's keys, values and traceback."""
    return {
        redact_name(key): (
            escape_control(redact_text(str(value)), keep_lines=True)
            if key in {"exception", "stack"}
            else redact_named(str(key), value)
        )
        for key, value in event.items()
    }


def _is_news(record: logging.LogRecord) -> bool:
    """Returns False for a 503, which is not logged: the service chose that answer, and the access log shows it."""
    return getattr(record, "status_code", 0) != HTTPStatus.SERVICE_UNAVAILABLE


def _add_request_id(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    if request_id := current_request_id.get():
        event.setdefault("request_id", request_id)
    return event


def _indent_traceback(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    # The lines of a traceback are indented, because an exception's message may contain line feeds, and no part of it
    # must look like a log line of ours.
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
    """Looks up sys.stdout anew for each log line, because tests and commands replace sys.stdout."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    def write(self, line: str) -> None:
        """Writes a complete line. An error, such as a full disk, is reported on stderr and not raised."""
        self.acquire()
        try:
            self.stream.write(line + "\n")
            self.flush()
        except Exception:
            self.handleError(logging.makeLogRecord({"name": "log_line"}))
        finally:
            self.release()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        # Logging would write the whole record to stderr, in which nothing is redacted.
        super().handleError(logging.makeLogRecord({"msg": f"a line of {record.name}"}))

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stdout


# The handler of this process if it writes JSON, or None.
_json_handler: _StdoutHandler | None = None

_encode = json.JSONEncoder().encode
