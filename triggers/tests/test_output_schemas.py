"""What is a trigger's output schema, and what is refused before any worker sees it."""

from contextlib import suppress
from time import perf_counter
from typing import Any

import pytest

from triggers.models import Run, TriggerRevision
from triggers.output_schemas import DIALECT, BadOutputSchema, check_output_schema

NOWHERE = "names no place in this schema; others are never loaded."


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels - 1):
        schema = {"not": schema}
    return schema


def refusal(schema: Any) -> str:
    with pytest.raises(BadOutputSchema) as refused:
        check_output_schema(schema)
    return str(refused.value)


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"$schema": DIALECT},
        {"$schema": f"{DIALECT}#"},
        {"type": "object", "properties": {"$schema": {"type": "string"}}},
        {"$ref": "#"},
        {"$ref": "#/$defs/a~1b", "$defs": {"a/b": True}},
        {"$ref": "#here", "$defs": {"a": {"$anchor": "here"}}},
        {"$dynamicRef": "#here", "$defs": {"a": {"$dynamicAnchor": "here"}}},
        {
            "$id": "https://schemas.example/root",
            "$defs": {"q": {"$id": "q", "$anchor": "here"}},
            "anyOf": [{"$ref": "q"}, {"$ref": "https://schemas.example/q#here"}],
        },
        {"const": {"$ref": "https://schemas.example/x", "pattern": "("}},
        {"x-hint": {"$ref": "https://schemas.example/x"}},
        {"pattern": "^[a-z]+$", "patternProperties": {"^x-": {}}},
        {"minimum": 10**300},
        nested(32),
    ],
    ids=lambda schema: str(schema)[:40],
)
def test_these_are_schemas(schema: dict[str, Any]) -> None:
    check_output_schema(schema)


@pytest.mark.parametrize(
    ("schema", "sentence"),
    [
        ([], "Must be a JSON object."),
        (True, "Must be a JSON object."),
        ({"description": "é" * 16380}, "Must not be longer than 32 KiB."),
        (nested(33), "Must not be nested more than 32 levels deep."),
        (nested(300), "Must not be nested more than 32 levels deep."),
        ({"x": {"type": ["string"] * 65}}, "Must not name more than 64 types in a place."),
        ({"anyOf": [{}] * 1999}, "Must not hold more than 2,000 objects, lists and booleans."),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, f"$schema must be {DIALECT}, or be left out."),
        ({"$schema": 5}, f"$schema must be {DIALECT}, or be left out."),
        ({"items": {"$schema": "urn:x"}}, f"$schema must be {DIALECT}, or be left out."),
        ({"properties": 5}, "Not a JSON Schema 2020-12: at /properties: 5 is not of type 'object'"),
        (
            {"required": ["a", "a"]},
            "Not a JSON Schema 2020-12: at /required: ['a', 'a'] has non-unique elements",
        ),
        ({"pattern": "("}, "The pattern ( is no regular expression."),
        ({"pattern": "(" * 5000 + ")" * 5000}, f"The pattern {'(' * 200}… is no regular expression."),
        ({"patternProperties": {"[": {}}}, "The pattern [ is no regular expression."),
        ({"pattern": "(?i)a"}, "The pattern (?i)a has flags, which JSON Schema does not know."),
        ({"pattern": "[!-\U0010ffff]" * 257}, "Its patterns must not hold more than 256 sets of characters."),
        ({"$ref": "https://schemas.example/s"}, f"The reference https://schemas.example/s {NOWHERE}"),
        ({"$ref": "file:///etc/passwd"}, f"The reference file:///etc/passwd {NOWHERE}"),
        ({"$ref": "other.json#/a"}, f"The reference other.json#/a {NOWHERE}"),
        ({"$ref": DIALECT}, f"The reference {DIALECT} {NOWHERE}"),
        ({"$dynamicRef": "#gone"}, f"The reference #gone {NOWHERE}"),
        (
            {"$ref": "#/const/a", "const": {"a": {"$ref": "https://schemas.example/s"}}},
            "The reference #/const/a names a place that holds no schema.",
        ),
        ({"$id": "http://[", "$ref": "a"}, "An $id or a reference in it is no URI."),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_these_are_refused(schema: Any, sentence: str) -> None:
    assert refusal(schema) == sentence


@pytest.mark.parametrize(
    "schema",
    [
        {"anyOf": [{} for _ in range(1998)]},
        {"properties": {f"a{n}": {"type": ["string", "null"]} for n in range(900)}},
        {"anyOf": [{"type": [kind for n in range(30) for kind in (n, str(n))]}] * 100},
        {"pattern": "[!-\U0010ffff]" * 256},
        {"anyOf": [{"$ref": f"#/anyOf/{n}"} for n in range(900)]},
        {"pattern": "(a*)*b" * 5000},
    ],
    ids=lambda schema: str(schema)[:40],
)
def test_no_schema_takes_long_to_check(schema: dict[str, Any]) -> None:
    began = perf_counter()
    with suppress(BadOutputSchema):
        check_output_schema(schema)
    assert perf_counter() - began < 20, "it takes a second on a machine that does nothing else"


class TestTheRevision:
    @pytest.fixture
    def patch(self, cast):
        client = cast.client(cast.owner)
        return lambda **body: client.patch(f"/api/v1/triggers/{cast.trigger_id}", body).json()

    @pytest.fixture
    def poll(self, cast):
        url = f"/api/v1/workers/{cast.worker.worker_id}/poll"
        return lambda: cast.worker_client().get(url).json()["runs"]

    def test_a_run_keeps_the_schema_that_it_was_queued_with(self, cast, patch, poll):
        patch(outputSchema={"title": "then"})
        cast.key_client().post(f"/api/v1/triggers/{cast.trigger_id}/run", {})
        patch(outputSchema={"title": "now"}, retryAfterEffects=False)
        (run,) = poll()
        assert run["outputSchema"] == {"title": "then"}
        assert run["retryAfterEffects"] is False

    def test_it_is_kept_as_it_was_given(self, patch):
        schema = {"z": 1.0, "a": {"const": 10**300}, "title": "é😀\u2028"}
        assert list(patch(outputSchema=schema)["outputSchema"]) == list(schema)

    @pytest.mark.parametrize("other", [{"const": True}, {"const": 1.0}, {"const": "1"}])
    def test_values_that_python_holds_to_be_equal_differ(self, patch, other):
        patch(outputSchema={"const": 1})
        before = TriggerRevision.objects.count()
        patch(outputSchema=other)
        patch(outputSchema=other)
        assert TriggerRevision.objects.count() == before + 1

    def test_null_removes_it(self, patch):
        patch(outputSchema={})
        assert patch(outputSchema=None)["outputSchema"] is None
        assert not TriggerRevision.objects.filter(output_schema__isnull=False, prompt="").exists()

    def test_a_nul_in_it_is_refused(self, cast):
        client, url = cast.client(cast.owner), f"/api/v1/triggers/{cast.trigger_id}"
        response = client.patch(url, {"outputSchema": {"title": "\x00"}})
        assert response.status_code == 400
        assert not Run.objects.exists()
