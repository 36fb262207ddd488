"""Sets up the tenants: the neighbour who lives a normal life, and whoever floods."""

import secrets
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from bench.abuse.copies import copy_row
from bench.cast import Account, Customer, Pair, register
from bench.http_client import HOST, Connection
from bench.stack import Database, free_port

# No schedule comes due before somebody sets `next_run_at`.
NEVER = "9999-01-01T00:00:00Z"
# As many lifecycles, and as many waiting polls, as the neighbour can have under way.
_WORKING, _WAITING = 32, 8
# Leftovers of a lifecycle that was given up must not stop the worker's next one.
_CAPACITY = 1000
# A login from each in turn stays below the throttle of an account.
_PEOPLE = 4
# A trigger can come due once a minute, so this many can come due one a second and more.
_SCHEDULED = 150


@dataclass(frozen=True, slots=True, repr=False)
class Neighbour:
    """The tenant whose latencies are measured."""

    environment_id: str
    people: Sequence[Account]
    working: Sequence[Pair]  # their triggers tell `hooks_port` of each run's end
    waiting: Sequence[Pair]
    scheduled: deque[str]  # triggers
    hooks_port: int


def random_address() -> str:
    """The address of a client that has not called before."""
    return f"10.{secrets.randbelow(256)}.{secrets.randbelow(256)}.{1 + secrets.randbelow(254)}"


@contextmanager
def new_customer(port: int) -> Iterator[Customer]:
    """A customer who has just come, from an address of their own."""
    with Connection(port) as connection:
        yield Customer(connection, random_address())


def new_account(port: int) -> Account:
    """A user who is a member of nothing yet, from an address of their own."""
    with Connection(port) as connection:
        return register(connection, random_address())


def settle_in(on: Database, port: int) -> Neighbour:
    """The neighbour, with workers, triggers and colleagues."""
    hooks_port = free_port()
    with new_customer(port) as customer:
        environment_id, key = customer.environment("production")
        hook = f"http://{HOST}:{hooks_port}/"
        working = [
            customer.pair(environment_id, key, f"working-{n}", _CAPACITY, webhookUrl=hook)
            for n in range(_WORKING)
        ]
        waiting = [
            customer.pair(environment_id, key, f"waiting-{n}", _CAPACITY) for n in range(_WAITING)
        ]
        hourly = customer.pair(environment_id, key, "hourly", schedule="0 * * * *")
    trigger = f"trigger WHERE environment_id = '{environment_id}' AND schedule IS NOT NULL"
    copy_row(
        on, "trigger", hourly.trigger_id, _SCHEDULED - 1,
        id="gen_random_uuid()", next_run_at=f"'{NEVER}'",
    )  # fmt: skip
    scheduled = deque(row["id"] for row in on.all(f"SELECT id::text FROM {trigger}"))
    people = [customer.account, *(new_account(port) for _ in range(_PEOPLE - 1))]
    return Neighbour(environment_id, people, working, waiting, scheduled, hooks_port)
