"""Counts calls for a throttle without making them."""

from pipedai.api import throttling
from pipedai.api.throttling import Rate
from pipedai.sql import execute


def count_more(rate: Rate, key: str, calls: int) -> None:
    """Adds so many calls to those that the rate has counted for this key, of which there must be one."""
    more = {"bucket": throttling._bucket(rate, key), "calls": calls}
    counted = execute("UPDATE throttle SET hits = hits + %(calls)s WHERE bucket = %(bucket)s", more)
    assert counted == 1, f"{rate.name} has counted nothing for {key}"
