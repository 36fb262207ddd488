"""Decides how claude is paid for on this machine: by a subscription or by an API key, as operator or API choose."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from pipedai_worker.logs import get_logger

log = get_logger(__name__)

CLAUDE_MAX, API_KEY = "claude_max", "api_key"
AUTH_MODES = (CLAUDE_MAX, API_KEY)
# The variables that claude gets for each way of paying. With a subscription it gets no API key,
# because claude would use the key without saying so.
CREDENTIALS = {
    CLAUDE_MAX: ("CLAUDE_CODE_OAUTH_TOKEN",),
    API_KEY: ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"),
}
EVERY_CREDENTIAL = tuple(name for names in CREDENTIALS.values() for name in names)


class Paying:
    """The present way of paying for claude: what the operator chose, else what the API told, else a subscription."""

    def __init__(
        self,
        chosen: str | None,
        from_api: str | None = None,
        remember: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Take the operator's choice, and what the API said last. `remember` is called when that changes."""
        self._lock = threading.Lock()
        self._chosen = chosen
        self._from_api = from_api if from_api in AUTH_MODES else None
        self._remember = remember

    @property
    def mode(self) -> str:
        return self._chosen or self._from_api or CLAUDE_MAX

    @property
    def why(self) -> str:
        if self._chosen:
            return "by --auth-mode or AUTH_MODE"
        if self._from_api:
            return "as the API says"
        return "by default, until the API says"

    def learn(self, from_api: str | None) -> None:
        """Keep the way of paying that the API tells. None, or a way that this worker does not know, changes nothing."""
        if from_api not in AUTH_MODES:
            return
        with self._lock:
            if from_api == self._from_api:
                return
            before, self._from_api = self.mode, from_api
        self._remember(from_api)
        if self.mode != before:
            log.info("claude is paid for by %s from now on (%s)", self.mode, self.why)
            for complaint in self.complaints():
                log.warning("%s", complaint)
        elif self._chosen and self._chosen != from_api:
            log.warning(
                "the API says that this worker pays by %s, but %s holds (%s)",
                from_api,
                self.mode,
                self.why,
            )

    def complaints(self) -> list[str]:
        """Return a sentence on each credential that is set but kept from claude, and one if claude's own is missing."""
        mode = self.mode
        complaints = [
            f"{name} is kept from claude, which is paid for by {mode} ({self.why});"
            f" to use it: --auth-mode {other}"
            for other in AUTH_MODES
            if other != mode
            for name in CREDENTIALS[other]
            if os.environ.get(name)
        ]
        if mode == API_KEY and not any(os.environ.get(name) for name in CREDENTIALS[API_KEY]):
            complaints.append(
                f"claude is paid for by {mode} ({self.why}), but neither {' nor '.join(CREDENTIALS[API_KEY])}"
                " is set for the worker"
            )
        return complaints
