"""Rows go out, and bodies come in, without what DRF does for each (docs/decisions/fast-paths.md)."""

from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pytest
from rest_framework import serializers

from pipedai.api.fields import MoneyField
from pipedai.api.serializers import RowSerializer, StrictBody, _validator
from testing.world.cases import cases

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)


class Shouting(serializers.CharField):
    def to_representation(self, value):
        return value.upper()


@cases(
    "field",
    [
        Shouting(),
        serializers.DecimalField(max_digits=4, decimal_places=1),
        serializers.ListField(),
        serializers.DateTimeField(format="%Y"),
        serializers.UUIDField(format="hex"),
        serializers.DictField(child=Shouting()),
        serializers.ListField(child=Shouting()),
        serializers.PrimaryKeyRelatedField(read_only=True),
    ],
)
def test_a_field_that_would_be_ignored_keeps_the_class_from_being_made(field):
    with pytest.raises(TypeError, match=r"Answer: .*\['bad'\]"):
        type("Answer", (RowSerializer,), {"good": serializers.CharField(), "bad": field})


def test_such_a_field_of_a_base_class_is_found_too():
    class Base(serializers.Serializer):
        name = Shouting()

    with pytest.raises(TypeError, match="name"):
        type("Answer", (RowSerializer, Base), {})


class Part(RowSerializer):
    name = serializers.CharField()


class Answer(RowSerializer):
    id = serializers.UUIDField()
    at = serializers.DateTimeField(source="made_at")
    cost = MoneyField()
    headers = serializers.DictField(child=serializers.CharField())
    words = serializers.ListField(child=serializers.CharField())
    part = Part()
    none = Part(allow_null=True)
    twice = serializers.SerializerMethodField()

    def get_twice(self, row):
        return row["n"] * 2


def test_it_gives_what_drf_gives():
    row = {
        "id": UUID(int=7),
        "made_at": NOON,
        "cost": Decimal("0.1"),
        "headers": {"a": "b"},
        "words": ["c", "d"],
        "part": {"name": "x"},
        "none": None,
        "n": 4,
    }
    ours = Answer(row).data
    drf = serializers.Serializer.to_representation(Answer(), row)
    # DRF writes a UUID as text; here the renderer does.
    assert {**ours, "id": str(ours["id"])} == drf


class Wish(StrictBody):
    name = serializers.CharField()


def test_a_body_is_validated_by_one_instance_that_keeps_nothing():
    shared = _validator(Wish, False)
    assert _validator(Wish, False) is shared
    assert shared.run_validation({"name": "a"}) == {"name": "a"}
    before = dict(vars(shared))
    with pytest.raises(serializers.ValidationError):
        shared.run_validation({"name": 1, "x": 2})
    assert shared.run_validation({"name": "b"}) == {"name": "b"}
    assert vars(shared) == before
