"""What is a trigger's output schema, and what is refused before any worker sees it."""

import re
from contextlib import suppress
from time import process_time
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from testing.world.cases import cases
from triggers.models import Run, TriggerRevision
from triggers.output_schemas import DIALECT, BadOutputSchema, check_output_schema, schema_validator

METASCHEMA = schema_validator()
ODD: tuple[Any, ...] = (
    True,
    1,
    -1,
    "a",
    "#",
    None,
    [],
    ["a"],
    ["a", "a"],
    [{}],
    {},
    {"a": 1},
    {"a": {}},
    {"a": ["a"]},
)
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


@cases(
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
)
def test_these_are_schemas(schema: dict[str, Any]) -> None:
    check_output_schema(schema)


@cases(("schema", "sentence"),
    [
        ([], "Must be a JSON object."),
        (True, "Must be a JSON object."),
        ({"description": "é" * 16380}, "Must not be longer than 32 KiB."),
        (nested(33), "Must not be nested more than 32 levels deep."),
        (nested(300), "Must not be nested more than 32 levels deep."),
        ({"x": {"type": ["string"] * 65}}, "Must not name more than 64 types in a place."),
        ({"anyOf": [{}] * 599}, "Must not hold more than 600 objects, lists and booleans."),
        ({"enum": [0] * 1001}, "Its lists must not hold more than 1,000 items."),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, f"$schema must be {DIALECT}, or be left out."),
        ({"$schema": 5}, f"$schema must be {DIALECT}, or be left out."),
        ({"items": {"$schema": "urn:x"}}, f"$schema must be {DIALECT}, or be left out."),
        ({"properties": 5}, "Not a JSON Schema 2020-12: at /properties: 5 is not of type 'object'"),
        (
            {"required": ["a", "a"]},
            "Not a JSON Schema 2020-12: at /required: ['a', 'a'] has non-unique elements",
        ),
        ({"pattern": "("}, "The pattern ( is no regular expression."),
        ({"pattern": "(" * 2000 + ")" * 2000}, f"The pattern {'(' * 200}… is no regular expression."),
        ({"patternProperties": {"[": {}}}, "The pattern [ is no regular expression."),
        ({"pattern": "(?i)a"}, "The pattern (?i)a has flags, which JSON Schema does not know."),
        ({"pattern": "a" * 4097}, "Its patterns must not have more than 4,096 characters."),
        (
            {"pattern": "[!-\U0010ffff]" * 5},
            "Its patterns with characters beyond U+00FF must not hold more than 4 sets.",
        ),
        (
            {"pattern": r"[!-\uffff]" * 5},
            "Its patterns with characters beyond U+00FF must not hold more than 4 sets.",
        ),
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
        ({"$ref": "#/minLength/x", "minLength": 1}, f"The reference #/minLength/x {NOWHERE}"),
        ({"$ref": "#/const/x", "const": None}, f"The reference #/const/x {NOWHERE}"),
        ({"$dynamicRef": "#/$defs/a/x", "$defs": {"a": True}}, f"The reference #/$defs/a/x {NOWHERE}"),
    ])  # fmt: skip
def test_these_are_refused(schema: Any, sentence: str) -> None:
    assert refusal(schema) == sentence


def numbered_ids(count: int) -> dict[str, Any]:
    return {
        "$id": "http://schemas.example/",
        "anyOf": [{"$id": str(n)} for n in range(count)],
        "allOf": [{"$ref": str(n)} for n in range(count)],
    }


# The largest schemas of each kind, accepted ones first. Larger ones are refused before the costly steps.
LARGEST = [
    {"anyOf": [{"minLength": 1, "maxLength": 1} for _ in range(598)]},
    {"properties": {f"a{n}": {"type": ["string", "null"]} for n in range(298)}},
    {"dependencies": {f"a{n}": ["a", "b"] for n in range(450)}},
    {"$defs": {"a": {"$anchor": "x"}}, "anyOf": [{"$ref": "#x"}] * 596},
    {"$defs": {"a": {"$dynamicAnchor": "x"}}, "anyOf": [{"$dynamicRef": "#x"}] * 596},
    numbered_ids(298),
    {"anyOf": [{"$ref": "#/anyOf/0"}] * 598},
    {"pattern": "[!-\U0010ffff]" * 4 + "(a)" * 1300},
    {"pattern": "[a-z]" * 800},
    {"required": [str(n) for n in range(1000)]},
    {"$defs": {"a": {"$anchor": "x"}}, "anyOf": [{"$ref": "#x"}] * 1900},
    {"pattern": "[!-\U0010ffff]" * 256},
    {"pattern": "(a*)*b" * 5000},
    {"anyOf": [{"type": [kind for n in range(30) for kind in (n, str(n))]}] * 100},
]


@cases("schema", LARGEST)
def test_no_schema_takes_long_to_check(schema: dict[str, Any]) -> None:
    re.purge()
    began = process_time()
    with suppress(BadOutputSchema):
        check_output_schema(schema)
    assert process_time() - began < 0.25, "it takes less than 0.05 s on an idle machine"


def shortened(schema: Any) -> Any:
    """Returns the schema with the first ten parts of each object and list in it."""
    if isinstance(schema, dict):
        return {name: shortened(schema[name]) for name in [*schema][:10]}
    return [*map(shortened, schema[:10])] if isinstance(schema, list) else schema


def test_the_flat_metaschema_judges_as_the_standard_one() -> None:
    standard = Draft202012Validator(Draft202012Validator.META_SCHEMA)
    schemas = [shortened(schema) for schema in LARGEST]
    schemas += [{name: value} for name in METASCHEMA.schema["properties"] for value in ODD]
    schemas += [{"allOf": [{"not": {"properties": {"a": {"items": each}}}}]} for each in ODD]
    for schema in schemas:
        assert METASCHEMA.is_valid(schema) == standard.is_valid(schema), schema


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

    @cases("other", [{"const": True}, {"const": 1.0}, {"const": "1"}], undone=True)
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
