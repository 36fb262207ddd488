"""Fields that take a JSON type at its word."""

from decimal import Decimal

import pytest
from rest_framework.serializers import ValidationError

from pipedai.api.fields import MoneyField, TextField, TrueFalseField, WholeNumberField

TYPES = ["x", "5", "", 5, 5.5, 0, True, False, [], {}]


@pytest.mark.parametrize("value", [v for v in TYPES if not isinstance(v, str)])
def test_text_is_a_string(value):
    with pytest.raises(ValidationError, match="Must be a string"):
        TextField().run_validation(value)


@pytest.mark.parametrize("value", ["x", "5", "", 5.5, True, False, [], {}])
def test_a_whole_number_is_a_number_without_a_fraction(value):
    with pytest.raises(ValidationError, match="Must be a whole number"):
        WholeNumberField().run_validation(value)


@pytest.mark.parametrize(("value", "number"), [(5, 5), (5.0, 5), (-1, -1), (0, 0), (1e3, 1000)])
def test_a_whole_number_may_be_written_with_a_point(value, number):
    read = WholeNumberField().run_validation(value)
    assert (read, type(read)) == (number, int)


@pytest.mark.parametrize("value", ["true", "", 1, 0, [], {}])
def test_true_and_false_are_booleans(value):
    with pytest.raises(ValidationError, match="Must be true or false"):
        TrueFalseField().run_validation(value)


class TestMoney:
    @pytest.mark.parametrize(
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

    @pytest.mark.parametrize("value", ["", "a", "1,5", "$1", True, [], {}, "0x1"])
    def test_anything_else_is_refused(self, value):
        with pytest.raises(ValidationError, match="Must be a number or a decimal string"):
            MoneyField().run_validation(value)

    @pytest.mark.parametrize(
        "value", [-1, "-0.01", 1e300, "1e300", 100000000, "NaN", "Infinity", "-Infinity"]
    )
    def test_an_absurd_amount_is_dropped(self, value):
        assert MoneyField().run_validation(value) is None
