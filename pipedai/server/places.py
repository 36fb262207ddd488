"""Limits how many requests of one subject, such as one worker, a process serves at the same time.

A request counts until its answer has been sent.
"""

from collections import Counter
from collections.abc import Hashable
from functools import partial
from threading import Lock

from django.http import HttpRequest
from rest_framework.request import Request

from pipedai.server.memory_budget import HOLDING, Holding


class Places:
    """Lets each subject, such as a worker, have at most `most` requests under way in this process."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: Counter[Hashable] = Counter()
        self._lock = Lock()

    def take(self, subject: Hashable, request: HttpRequest | Request) -> bool:
        """Count the request as one of the subject's, or return False if the subject has the most that it may have.

        The request counts until its answer has been sent or its client has left. Only our own server tells when that
        happens, so under any other server nothing is counted, and the result is always True.
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
