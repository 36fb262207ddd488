"""Removes old notices, and deleted channels that have none left (SPEC §10)."""

from collections.abc import Iterator

from pipedai.retention import Batch, Order, remove, until_short
from pipedai.sql import Row, fetch_all

