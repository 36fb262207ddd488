"""Times and amounts of money have the right form in answers."""

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipedai.api.renderers import JSONRenderer, iso_time, money


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2026, 11, 24, 15, 29, 30, 123456, UTC), "2026-11-24T15:29:30.123Z"),
        (datetime(2026, 11, 24, 15, 29, 30, 999999, UTC), "2026-11-24T15:29:30.999Z"),
        (datetime(2026, 11, 24, tzinfo=UTC), "2026-11-24T00:00:00.000Z"),
        (
            datetime(2026, 1, 1, 1, 30, tzinfo=timezone(timedelta(hours=2))),
            "2025-12-31T23:30:00.000Z",
        ),
    ],
)
def test_a_time_is_utc_with_milliseconds(moment, text):
    assert iso_time(moment) == text


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ("0.012000", "0.012"),
        ("0.000000", "0"),
        ("0.000001", "0.000001"),
        ("1E-6", "0.000001"),
        ("1E+3", "1000"),
        ("100", "100"),
        ("100.000000", "100"),
        ("99999999.999999", "99999999.999999"),
    ],
)
def test_money_has_no_exponent_and_no_trailing_zeros(amount, text):
    assert money(Decimal(amount)) == text


@given(st.decimals(min_value=0, max_value=10**8, places=6))
def test_money_keeps_its_value(amount):
    text = money(amount)
    assert Decimal(text) == amount
    assert "E" not in text
    assert not text.endswith(".")
    assert "." not in text or not text.endswith("0")


def test_an_answer_is_json_with_both():
    answer = {"at": datetime(2026, 1, 1, tzinfo=UTC), "costUsd": Decimal("0.10"), "name": "ß"}
    rendered = JSONRenderer().render(answer)
    assert json.loads(rendered) == {
        "at": "2026-01-01T00:00:00.000Z",
        "costUsd": "0.1",
        "name": "ß",
    }
