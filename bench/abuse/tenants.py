"""Makes the tenants: the neighbour, who works normally, and those that flood."""

import secrets
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from bench.abuse.copies import copy_row
from bench.cast import Account, Customer, Pair, register
from bench.event_calls import Source, make_source
from bench.http_client import HOST, Connection
from bench.stack import Database, free_port

# With this `next_run_at`, no schedule comes due by itself.
NEVER = "9999-01-01T00:00:00Z"
# The most lifecycles, and the most waiting polls, that the neighbour can have under way.
_WORKING, _WAITING = 32, 8
# A worker's capacity: so large that runs of a failed lifecycle don't keep its worker from the next one.
_CAPACITY = 1000
# How many people log in, in turn: so many that the throttle of an account never refuses them.
_PEOPLE = 4
# How many scheduled triggers there are. Each can come due once a minute, so together they can every second and more.
_SCHEDULED = 150


@dataclass(frozen=True, slots=True, repr=False)
class Neighbour:
    """The tenant whose latencies the benchmark measures."""

    environment_id: str
    people: Sequence[Account]
    working: Sequence[Pair]  # their triggers send a webhook to `hooks_port` at each run's end
    waiting: Sequence[Pair]
    scheduled: deque[str]  # ids of triggers
    source: Source
    hooks_port: int


def random_address() -> str:
    """Return a random address, as of a client that has not called before."""
    return f"10.{secrets.randbelow(256)}.{secrets.randbelow(256)}.{1 + secrets.randbelow(254)}"


@contextmanager
def new_customer(port: int) -> Iterator[Customer]:
    """Register a new customer, who calls from an address of their own."""
    with Connection(port) as connection:
        yield Customer(connection, random_address())


def new_account(port: int) -> Account:
    """Register a user who is a member of nothing yet and calls from an address of their own."""
    with Connection(port) as connection:
        return register(connection, random_address())


def settle_in(on: Database, port: int) -> Neighbour:
    """Make the neighbour, with workers, triggers and colleagues."""
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
        source = make_source(customer, environment_id)
        hourly = customer.pair(environment_id, key, "hourly", schedule="0 * * * *")
    trigger = f"trigger WHERE environment_id = '{environment_id}' AND schedule IS NOT NULL"
    copy_row(
        on, "trigger", hourly.trigger_id, _SCHEDULED - 1,
        id="gen_random_uuid()", next_run_at=f"'{NEVER}'",
    )  # fmt: skip
    scheduled = deque(row["id"] for row in on.all(f"SELECT id::text FROM {trigger}"))
    people = [customer.account, *(new_account(port) for _ in range(_PEOPLE - 1))]
    return Neighbour(environment_id, people, working, waiting, scheduled, source, hooks_port)
