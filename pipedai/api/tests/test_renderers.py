"""Times and amounts of money have the right form in answers."""

import json
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from uuid import UUID

from django.utils.translation import gettext_lazy
from hypothesis import given
from hypothesis import strategies as st
from rest_framework.exceptions import ErrorDetail

from pipedai.api.renderers import JSONRenderer, iso_time, money
from testing.world.cases import cases
from triggers.states import Status


@cases(
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


@cases(
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


@cases(
    "value",
    [
        None,
        {},
        [],
        {"a": ["é\u2028\u2029😀", 1.5, True, None, '\x00\x1f\x7f"\\/'], "": {"b": [[], {}]}},
        {"large": [2**63 - 1, 2**64 - 1, 2**64, -(2**63), -(2**64), 10**300]},
        {1: "a number as a name", "status": Status.QUEUED, "words": ErrorDetail("Unknown.", "x")},
        {"lazy": gettext_lazy("Yes"), "day": date(2026, 1, 1), "pair": (1, 2)},
        {"at": datetime(2026, 1, 1, tzinfo=UTC), "cost": Decimal("0.0120"), "id": UUID(int=7)},
    ],
)
@cases("media_type", ["application/json", "application/json; indent=2"])
def test_it_renders_what_drf_renders(value, media_type):
    rendered = JSONRenderer().render(value, media_type, {})
    assert rendered == super(JSONRenderer, JSONRenderer()).render(value, media_type, {})


def test_a_number_that_json_lacks_is_null():
    assert JSONRenderer().render({"n": float("nan")}, "application/json", {}) == b'{"n":null}'
