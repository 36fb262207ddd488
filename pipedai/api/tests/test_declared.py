"""Answers have the types of the columns and attributes that they show, in the order in which they name them."""

from dataclasses import dataclass
from uuid import UUID

import pytest
from rest_framework import serializers

from pipedai.api.serializers import NamedSerializer, serializer_of
from triggers.models import Run, RunText


@dataclass
class _Part:
    """A part."""

    id: UUID
    noted: int | None


@dataclass
class _Whole:
    parts: tuple[_Part, ...]
    first_part: _Part | None


class _RunShown(NamedSerializer):
    of = Run, RunText
    shows = "status errorMessage worker id"
    worker = serializers.CharField(source="worker.label")


class _LongerRunShown(_RunShown):
    shows = "attempt"


def test_columns_are_shown_with_their_types_and_in_order() -> None:
    fields = _LongerRunShown().fields
    assert [*fields] == ["status", "errorMessage", "worker", "id", "attempt"]
    assert isinstance(fields["status"], serializers.ChoiceField)
    assert not fields["status"].allow_null
    assert fields["errorMessage"].allow_null
    assert fields["worker"].source == "worker.label"


def test_a_dataclass_is_shown_with_its_parts() -> None:
    part = _Part(UUID(int=1), None)
    told = {"id": str(UUID(int=1)), "noted": None}
    shown = serializer_of(_Whole)
    assert shown(_Whole((part,), None)).data == {"parts": [told], "firstPart": None}
    assert shown(_Whole((), part)).data == {"parts": [], "firstPart": told}


def test_a_name_that_nothing_declares_is_refused() -> None:
    with pytest.raises(KeyError, match="color"):
        type("Odd", (NamedSerializer,), {"of": Run, "shows": "id color"})
