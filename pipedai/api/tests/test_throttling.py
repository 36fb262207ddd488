"""Throttles count hits per caller, and refuse those beyond a rate with the right headers."""

import os
from functools import partial

import pytest
from django.test import RequestFactory
from rest_framework.request import Request

from pipedai.api import throttling
from pipedai.api.throttling import (
    Rate,
    TooManyRequests,
    by_address,
    check_rate,
    count_hit,
    prune_throttles,
)
from pipedai.sql import execute, fetch_all, fetch_one
from testing.processes.forks import forked
from testing.processes.racing import at_once

# The window lasts a century, so that it ends in none of these tests.
LONG = 3_155_760_000
THREE = Rate("three", limit=3, seconds=LONG)


@pytest.fixture(autouse=True)
def _windows_as_long_as_said(monkeypatch):
    """Takes back what makes windows last a century in all other tests."""
    usual = throttling._COUNT.replace("greatest(%(seconds)s, 3155760000)", "%(seconds)s")
    monkeypatch.setattr(throttling, "_COUNT", usual)


def rows():
    return fetch_all("SELECT * FROM throttle", {})


def end_every_window():
    execute(
        "UPDATE throttle SET window_start = window_start - interval '1 year' * 200,"
        " expires_at = statement_timestamp() - interval '1 second'",
        {},
    )


@pytest.mark.django_db
class TestARate:
    def test_lets_so_many_pass_and_no_more(self):
        for _ in range(3):
            check_rate(THREE, "ada")
        for _ in range(2):
            with pytest.raises(TooManyRequests):
                check_rate(THREE, "ada")

    def test_counts_each_key_alone_and_each_rate_alone(self):
        for _ in range(3):
            check_rate(THREE, "ada")
        check_rate(THREE, "bob")
        check_rate(Rate("other", limit=3, seconds=LONG), "ada")
        assert count_hit(THREE, "ada")[0] == 4
        assert len(rows()) == 3

    def test_begins_anew_with_the_next_window(self):
        for _ in range(3):
            check_rate(THREE, "ada")
        end_every_window()
        assert count_hit(THREE, "ada")[0] == 1
        assert len(rows()) == 1

    def test_says_when_to_come_back(self):
        minute = Rate("minute", limit=0, seconds=60)
        with pytest.raises(TooManyRequests) as refused:
            check_rate(minute, "ada")
        headers = refused.value.headers
        seconds = int(headers["Retry-After"])
        assert 1 <= seconds <= 60
        assert headers["RateLimit-Policy"] == '"minute";q=0;w=60'
        assert headers["RateLimit"] == f'"minute";r=0;t={seconds}'
        assert refused.value.message == f"Too many requests: try again in {seconds} s."

    def test_is_kept_without_the_address_or_the_account(self):
        check_rate(THREE, "203.0.113.7 ada@example.com")
        (row,) = rows()
        assert len(row["bucket"]) == 32
        assert "ada" not in str(row)
        assert "203.0" not in str(row)

    def test_lies_in_a_table_that_no_crash_has_to_restore(self):
        row = fetch_one("SELECT relpersistence FROM pg_class WHERE relname = 'throttle'", {})
        assert row == {"relpersistence": "u"}


@pytest.mark.django_db
class TestPruning:
    def test_forgets_windows_that_are_over_and_no_others(self):
        check_rate(THREE, "over")
        end_every_window()
        check_rate(THREE, "lasting")
        assert prune_throttles() == 1
        assert len(rows()) == 1
        assert prune_throttles() == 0

    def test_goes_by_a_limit(self):
        for n in range(5):
            check_rate(THREE, str(n))
        end_every_window()
        assert [prune_throttles(limit=2) for _ in range(4)] == [2, 2, 1, 0]


class TestMany:
    def test_hits_at_once_are_all_counted(self, own_database):
        answers = at_once(*[partial(count_hit, THREE, "ada")] * 20)
        assert sorted(answer[0] for answer in answers if isinstance(answer, tuple)) == list(
            range(1, 21)
        )

    def test_checks_at_once_let_exactly_the_limit_pass(self, own_database):
        answers = at_once(*[partial(check_rate, THREE, "ada")] * 12)
        assert (
            sorted(str(type(answer).__name__) for answer in answers)
            == ["NoneType"] * 3 + ["TooManyRequests"] * 9
        )

    def test_processes_share_the_counters(self, own_database):
        def count_and_end():
            for _ in range(10):
                count_hit(THREE, "ada")
            os._exit(0)

        pids = [forked(count_and_end) for _ in range(2)]
        assert [os.waitpid(pid, 0)[1] for pid in pids] == [0, 0]
        assert count_hit(THREE, "ada")[0] == 21


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("203.0.113.7", "203.0.113.7", True),
        ("203.0.113.7", "203.0.113.8", False),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", True),
        ("2001:db8:1:2::1", "2001:0DB8:0001:0002::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("2001:db8:1:2::1", "2001:db9:1:2::1", False),
    ],
)
def test_ipv6_addresses_count_by_their_64_bit_network(one, other, same):
    def key(address):
        return by_address(Request(RequestFactory().get("/", REMOTE_ADDR=address)))

    assert (key(one) == key(other)) is same
