"""Limits how many requests of one subject a process serves at once. A request counts until its answer has been sent."""

from collections import Counter
from collections.abc import Hashable
from functools import partial
from threading import Lock

from django.http import HttpRequest
from rest_framework.request import Request

from pipedai.server.memory_budget import HOLDING, Holding


class Places:
    """Gives each subject, such as a worker, the same number of places."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: Counter[Hashable] = Counter()
        self._lock = Lock()

    def take(self, subject: Hashable, request: HttpRequest | Request) -> bool:
        """Take a place until the answer is sent or the client leaves, and return whether there was a free one.

        Only our own server tells when an answer is sent. Under any other server there is always a free place.
        """
        holding: Holding | None = request.META.get("asgi.scope", {}).get(HOLDING)
        if holding is None:
            return True
        with self._lock:
            if self._taken[subject] >= self._most:
                return False
            self._taken[subject] += 1
        holding.at_end(partial(self._leave, subject))
        return True

    def _leave(self, subject: Hashable) -> None:
        with self._lock:
            self._taken[subject] -= 1
            if not self._taken[subject]:
                del self._taken[subject]
