"""Serializer fields convert no JSON type to another."""

from decimal import Decimal
from uuid import UUID

import pytest
from rest_framework.serializers import ValidationError

from pipedai.api.fields import (
    IdField,
    MoneyField,
    NameField,
    TextField,
    TrueFalseField,
    WholeNumberField,
)
from testing.world.cases import cases

AN_ID = UUID("01a20e61-c9a4-74d9-ad24-2227f84af627")
TYPES = ["x", "5", "", 5, 5.5, 0, True, False, [], {}]


@cases("value", [v for v in TYPES if not isinstance(v, str)])
def test_text_is_a_string(value):
    with pytest.raises(ValidationError, match="Must be a string"):
        TextField().run_validation(value)


@cases("value", ["x", "5", "", 5.5, True, False, [], {}])
def test_a_whole_number_is_a_number_without_a_fraction(value):
    with pytest.raises(ValidationError, match="Must be a whole number"):
        WholeNumberField().run_validation(value)


@cases(("value", "number"), [(5, 5), (5.0, 5), (-1, -1), (0, 0), (1e3, 1000)])
def test_a_whole_number_may_be_written_with_a_point(value, number):
    read = WholeNumberField().run_validation(value)
    assert (read, type(read)) == (number, int)


@cases("value", ["true", "", 1, 0, [], {}])
def test_true_and_false_are_booleans(value):
    with pytest.raises(ValidationError, match="Must be true or false"):
        TrueFalseField().run_validation(value)


@cases(
    "value",
    [5, int(AN_ID), True, [], "", "x", AN_ID.hex, f"{{{AN_ID}}}", f"urn:uuid:{AN_ID}"],
)
def test_an_id_is_a_string_in_the_usual_form(value):
    with pytest.raises(ValidationError, match="Must be a valid UUID"):
        IdField().run_validation(value)


def test_the_case_of_an_id_does_not_matter():
    assert IdField().run_validation(str(AN_ID).upper()) == AN_ID


@cases(
    "value",
    [
        "Nightly report",
        "夜間レポート",
        "تقرير الليل",
        "می‌خواهم",  # with a zero-width non-joiner, which Persian needs
        "👩‍👩‍👧",  # joined by zero-width joiners
        "#1",
        "-",
    ],
)
def test_a_name_may_be_in_any_script(value):
    assert NameField(max_length=200).run_validation(value) == value


@cases(
    "value",
    ["a\nb", "a\tb", "a\x1b[31mb", "a\x7fb", "a\x85b", "a\u2028b", "a\u202egnp.exe", "\u2066a"],
)
def test_a_name_is_one_line_and_leaves_what_is_beside_it_alone(value):
    with pytest.raises(ValidationError, match="Must not hold line breaks, control characters"):
        NameField(max_length=200).run_validation(value)


@cases("value", ["\u200b", "\u200d\u2060", "\ufeff"])
def test_a_name_can_be_seen(value):
    with pytest.raises(ValidationError, match="Must hold something that can be seen"):
        NameField(max_length=200).run_validation(value)


class TestMoney:
    @cases(
        ("value", "amount"),
        [
            ("0.012", "0.012000"),
            (0.012, "0.012000"),
            (3, "3.000000"),
            ("1e-3", "0.001000"),
            ("0", "0.000000"),
            (0.1, "0.100000"),
            ("0.0000005", "0.000000"),
            ("0.0000015", "0.000002"),
            (99999999, "99999999.000000"),
        ],
    )
    def test_it_is_a_number_or_a_string_kept_to_six_places(self, value, amount):
        read = MoneyField().run_validation(value)
        assert str(read) == str(Decimal(amount))

    @cases("value", ["", "a", "1,5", "$1", True, [], {}, "0x1"])
    def test_anything_else_is_refused(self, value):
        with pytest.raises(ValidationError, match="Must be a number or a decimal string"):
            MoneyField().run_validation(value)

    @cases("value", [-1, "-0.01", 1e300, "1e300", 100000000, "NaN", "Infinity", "-Infinity"])
    def test_an_absurd_amount_is_dropped(self, value):
        assert MoneyField().run_validation(value) is None
