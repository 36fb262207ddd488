"""Shows a monitor outside that the service works: schedulers request HEARTBEAT_URL once a minute while no job fails.

The loop runs one job at a time, so a job that hangs stops the requests too.
"""

import threading
import time
from urllib.parse import urlsplit

import httpx
from django.conf import settings

from pipedai.logs import get_logger

log = get_logger(__name__)

# How often the URL is requested, in seconds. A request is made only if no job has failed for as long before it.
EVERY_SECONDS = 60.0
_TIMEOUT_SECONDS = 10.0

_lock = threading.Lock()
_failed_at: float | None = None
_sending: threading.Thread | None = None


def note_failure() -> None:
    global _failed_at
    with _lock:
        _failed_at = time.monotonic()


def beat() -> int:
    """Requests the URL in a thread of its own, unless a job failed lately or a request is under way. Returns 0."""
    global _sending
    url = settings.HEARTBEAT_URL
    if not url:
        return 0
    with _lock:
        went_well = _failed_at is None or time.monotonic() - _failed_at >= EVERY_SECONDS
        is_busy = _sending is not None and _sending.is_alive()
    if not went_well:
        log.warning("heartbeat.withheld")
    elif not is_busy:
        _sending = threading.Thread(target=_request, args=(url,), name="heartbeat", daemon=True)
        _sending.start()
    return 0


def wait() -> None:
    if _sending is not None:
        _sending.join(_TIMEOUT_SECONDS)


def _request(url: str) -> None:
    """Requests the URL. It may lie in a private network, as the operator chose it. The log names its host only."""
    host = urlsplit(url).hostname
    try:
        with httpx.Client(timeout=_TIMEOUT_SECONDS, trust_env=False) as client:
            answer = client.get(url)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        log.warning("heartbeat.failed", host=host, error=type(error).__name__)
        return
    if answer.is_success:
        log.debug("heartbeat.sent", host=host)
    else:
        log.warning("heartbeat.failed", host=host, status_code=answer.status_code)
