"""Knows in which environments somebody streams the changes, so that all others cost no notification.

In a web process the listener keeps this up to date: each stream announces its environment again and again. In the
scheduler, which hears no notifications, a job does.
"""

import math
import time

# A stream announces its environment this often, and the announcement counts for WATCHED_SECONDS.
ANNOUNCED_EVERY_SECONDS = 10.0
WATCHED_SECONDS = 40.0
# A process that has just begun to hear notifications knows of all streams after this many seconds, because each stream
# asks its view within 15 s.
LEARNING_SECONDS = 20.0


class Watches:
    """The environments whose changes somebody streams, as far as this process knows. Times are those of the monotonic
    clock. The event loop writes and the threads read; both are single steps on a dict.
    """

    def __init__(self) -> None:
        self._until: dict[str, float] = {}
        # Until then every environment counts as watched, because this process may not know of all streams.
        self._all_until = 0.0

    def hear(self, environment_id: str) -> None:
        """Note that somebody streams the changes of an environment."""
        now = time.monotonic()
        if environment_id not in self._until:
            self._until = {id_: until for id_, until in self._until.items() if until > now}
        self._until[environment_id] = now + WATCHED_SECONDS

    def hear_nothing(self) -> None:
        """Count every environment as watched, because announcements don't reach this process now."""
        self._all_until = math.inf

    def learn(self) -> None:
        """Count every environment as watched until all streams have announced theirs to this process."""
        self._all_until = time.monotonic() + LEARNING_SECONDS

    def is_watched(self, environment_id: object) -> bool:
        """Whether somebody streams the changes of an environment."""
        if not (self._until or self._all_until):
            return False
        now = time.monotonic()
        return self._all_until > now or self._until.get(str(environment_id), 0.0) > now

    def forget(self) -> None:
        """Forget everything, as a test does before the next one."""
        self._until, self._all_until = {}, 0.0


# What this process knows.
watches = Watches()
