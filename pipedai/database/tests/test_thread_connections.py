"""Whose connection is whose: each thread has its own, and an event loop has none."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.core.exceptions import SynchronousOnlyOperation
from django.db import connection, connections

from pipedai.sql import fetch_one


def test_each_thread_has_its_own_connection(db):
    assert isinstance(vars(connections)["_connections"], threading.local)
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(lambda: connections["default"]).result()
        assert other is pool.submit(lambda: connections["default"]).result()
    assert other is not connections["default"]
    assert connections["default"] is connections["default"]


def test_an_event_loop_is_refused(db):
    async def ask():
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")

    with pytest.raises(SynchronousOnlyOperation):
        asyncio.run(ask())
    assert fetch_one("SELECT 1 AS n", {}) == {"n": 1}
