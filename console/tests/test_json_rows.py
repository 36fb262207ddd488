"""JSON is typed in rows. What they can't say is shown as JSON, and what nobody changes stays exactly as it was."""

import json

import pytest
from django.http import HttpResponse
from django.template.loader import render_to_string
from django.test import RequestFactory
from hypothesis import given
from hypothesis import strategies as st

from console.forms import Form, Look
from console.json_rows import Schema, Values
from console.tests.visits import HOME, text_of, typed_in, visitor

SHAPES = {"before.arguments": Values(), "outputSchema": Schema()}
PATH = "triggers/00000000-0000-0000-0000-000000000000"
# Texts in which something is that a field of one line, or a list by commas, might lose.
_TEXTS = st.text(st.sampled_from('aé ,"\n\r\\\u00a01<'), max_size=5)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | _TEXTS | st.sampled_from(["true", "5", "null", "yes", "[", "{}"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
_OF_SCHEMA = st.fixed_dictionaries(
    {"type": st.sampled_from(["string", "number", "integer", "boolean", "array", "object"])},
    optional={
        "items": st.just({"type": "string"}),
        "description": _TEXTS,
        "enum": st.just(["a"]),
    },
)
_SCHEMAS = st.fixed_dictionaries(
    {"type": st.just("object")},
    optional={
        "properties": st.dictionaries(_TEXTS, _OF_SCHEMA | st.booleans(), max_size=3),
        "required": st.lists(_TEXTS, max_size=2),
        "additionalProperties": st.booleans(),
    },
)


def form_of(name, value=None):
    looks = {
        "before.tool": Look(),
        name: Look("It", kind="rows", row="Field", shape=SHAPES[name]),
    }
    before = {"tool": "look", "arguments": value}
    values = {"outputSchema": value} if name == "outputSchema" else {"before": before}
    return Form("PATCH", PATH, looks, values=values)


def read(name, typed):
    """Returns the form after it was sent, and the value that the API would get."""
    form = form_of(name)
    body = form.read(
        RequestFactory().post("/console/x", {"before.tool": "look", **typed}, headers=HOME)
    )
    owner, _, part = name.partition(".")
    return form, (body.get(owner) or {}).get(part) if part else body.get(owner)


def sent_back(name, value):
    """Returns what the API would get if a browser sent what it is shown. Inputs of one line lose line ends."""
    page = render_to_string("console/fields.html", {"form": form_of(name, value)})
    typed = typed_in(HttpResponse(page))
    for field in typed:
        if field != name:
            typed[field] = [text.replace("\r", "").replace("\n", "") for text in typed[field]]
    return read(name, typed)[1]


@given(value=st.dictionaries(_TEXTS, _VALUES, max_size=4))
def test_arguments_that_nobody_changes_stay_as_they_were(value):
    assert json.dumps(sent_back("before.arguments", value)) == json.dumps(value)


@given(value=_SCHEMAS | _VALUES.filter(lambda value: value != []))
def test_a_schema_that_nobody_changes_stays_as_it_was(value):
    assert json.dumps(sent_back("outputSchema", value)) == json.dumps(value)


@pytest.mark.parametrize(
    ("name", "value", "is_in_rows"),
    [
        ("before.arguments", {"state": "open", "most": 5, "all": True, "of": ["a", "b"]}, True),
        ("before.arguments", {"nested": {"deep": [1, {"er": None}]}}, True),
        ("before.arguments", {"": 1}, False),
        ("before.arguments", {f"n{n}": n for n in range(51)}, False),
        (
            "outputSchema",
            {
                "type": "object",
                "properties": {
                    "found": {"type": "boolean", "description": "Whether there is any."},
                    "names": {"type": "array", "items": {"type": "string"}},
                },
                "required": ["found"],
            },
            True,
        ),
        ("outputSchema", {"type": "object", "properties": {"a": {"enum": ["x"]}}}, False),
        ("outputSchema", {}, False),
        # What a row's fields would change without a word: other types, and descriptions of several lines.
        ("outputSchema", {"type": "object", "properties": {"a": {"type": "object"}}}, False),
        (
            "outputSchema",
            {"type": "object", "properties": {"a": {"type": ["string", "null"]}}},
            False,
        ),
        (
            "outputSchema",
            {"type": "object", "properties": {"a": {"type": "string", "description": "b\nc"}}},
            False,
        ),
        (
            "outputSchema",
            {"type": "object", "properties": {"a": {"type": "string", "description": " "}}},
            False,
        ),
    ],
)
def test_what_rows_say_is_in_rows_and_else_the_json_is_open(name, value, is_in_rows):
    page = render_to_string("console/fields.html", {"form": form_of(name, value)})
    assert (f'name="{name}.0.name"' in page) == is_in_rows
    assert ("<details open>" in page) != is_in_rows
    assert json.dumps(sent_back(name, value)) == json.dumps(value)


def rows(name, *typed):
    return {
        f"{name}.{number}.{part}": value
        for number, row in enumerate(typed)
        for part, value in row.items()
    }


def test_each_kind_of_value_has_its_json():
    typed = [
        {"name": "a", "kind": "text", "value": "5"},
        {"name": "b", "kind": "number", "value": "0.50"},
        {"name": "c", "kind": "flag", "value": "Yes"},
        {"name": "d", "kind": "list", "value": "x, 2, true"},
        {"name": "e", "kind": "json", "value": '{"f": null}'},
        {"name": "", "kind": "text", "value": ""},
        {"name": " g ", "kind": "text", "value": ""},
    ]
    form, value = read("before.arguments", rows("before.arguments", *typed))
    assert not form.wrong
    assert value == {
        "a": "5", "b": 0.5, "c": True, "d": ["x", 2, True], "e": {"f": None}, "g": ""
    }  # fmt: skip


@pytest.mark.parametrize(
    ("typed", "field", "said"),
    [
        ({"name": "a", "kind": "number", "value": "true"}, "value", "Type a number"),
        ({"name": "a", "kind": "number", "value": "x"}, "value", "Type a number"),
        ({"name": "a", "kind": "flag", "value": ""}, "value", "Type yes or no."),
        ({"name": "a", "kind": "json", "value": "{"}, "value", "Malformed JSON"),
        ({"name": "", "kind": "text", "value": "x"}, "name", "Type a name."),
        ({"name": "first", "kind": "text", "value": "x"}, "name", "Another row has this name."),
    ],
)
def test_what_is_wrong_with_a_row_is_said_at_its_field(typed, field, said):
    first = {"name": "first", "kind": "text", "value": "x"}
    form, _ = read("before.arguments", rows("before.arguments", first, typed))
    (wrong,) = form.wrong
    assert (wrong.name, wrong.said.startswith(said)) == (f"before.arguments.1.{field}", True)


def test_json_is_pasted_instead_of_rows_and_never_beside_them():
    name = "before.arguments"
    assert read(name, {name: '{"a": {"b": 1}}'})[1] == {"a": {"b": 1}}
    row = rows(name, {"name": "a", "kind": "text", "value": "x"})
    form, _ = read(name, {name: "{}", **row})
    assert "not both" in form.wrong[0].said
    assert read(name, {name: "", **rows(name, {"name": "", "value": ""})})[1] == {}
    assert read("outputSchema", {"outputSchema": ""})[1] is None


def test_no_form_asks_for_json_alone(cast):
    """A row or a field of its own for each value; a JSON field is folded beside them."""
    admin, path = visitor(cast.admin), f"/console/environments/{cast.environment.id}/triggers/new"
    assert 'class="field json"' not in admin.get(path).content.decode()
    trigger = f"/console/triggers/{cast.trigger_id}"
    assert 'class="field json"' not in admin.get(trigger).content.decode()


def test_a_row_is_added_to_a_payload_without_javascript_and_what_was_pasted_stays(cast):
    operator, page = visitor(cast.operator), f"/console/triggers/{cast.trigger_id}"
    first = typed_in(operator.get(page))
    assert first["payload.0.name"] == [""]
    typed = {**rows("payload", {"name": "day", "kind": "text", "value": "monday"})}
    more = operator.post(f"{page}/run", {**typed, "payload": "[1]", "add": "payload"})
    shown = typed_in(more)
    assert (shown["payload.0.value"], shown["payload.1.name"]) == (["monday"], [""])
    assert shown["payload"] == ["[1]"]
    assert "<details open>" in more.content.decode()
    wrong = operator.post(f"{page}/run", {**typed, "payload": "[1]"})
    assert (wrong.status_code, "not both" in text_of(wrong)) == (400, True)
