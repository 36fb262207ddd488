"""The clauses of `where` compare JSON values of one type, and a clause that does not hold shows what it saw."""

import json
import sys
from time import thread_time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rest_framework.exceptions import ValidationError

from pipedai_worker.clauses import OPS as OPS_OF_WORKERS
from pipedai_worker.clauses import all_hold
from testing.world.cases import cases
from triggers.events import clauses as prepared
from triggers.events.clauses import (
    FieldsField,
    Op,
    Searched,
    TooLarge,
    WhereField,
    pick,
    scalar_at,
)


def first_failing(listed, document, searched=None):
    return prepared.first_failing(map(prepared.Clause.of, listed), document, searched)


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
OPS = st.sampled_from([op.value for op in Op])


def holds(document, path, op, value):
    """Asks what the worker calls, too, which must agree."""
    [clause] = WhereField().run_validation([{"path": path, "op": op, "value": value}])
    found = first_failing([clause], document) is None
    assert all_hold([clause], document) is found
    return found


# RFC 6901 §5.
RFC_DOCUMENT = {
    "foo": ["bar", "baz"],
    "": 0,
    "a/b": 1,
    "c%d": 2,
    "e^f": 3,
    "g|h": 4,
    "i\\j": 5,
    'k"l': 6,
    " ": 7,
    "m~n": 8,
}
RFC_VALUES = {
    "": RFC_DOCUMENT,
    "/foo": ["bar", "baz"],
    "/foo/0": "bar",
    "/": 0,
    "/a~1b": 1,
    "/c%d": 2,
    "/e^f": 3,
    "/g|h": 4,
    "/i\\j": 5,
    '/k"l': 6,
    "/ ": 7,
    "/m~0n": 8,
}


def test_paths_are_json_pointers():
    assert pick({path: path for path in RFC_VALUES}, RFC_DOCUMENT) == RFC_VALUES


@cases(
    "path",
    ["/foo/2", "/foo/-", "/foo/00", "/foo/+1", "/foo/1.0", "/foo/٠", "/x", "//y", "/foo/0/b"],
)
def test_a_path_that_leads_nowhere_finds_nothing(path):
    assert not holds(RFC_DOCUMENT, path, "exists", True)
    assert holds(RFC_DOCUMENT, path, "exists", False)
    assert pick({"name": path}, RFC_DOCUMENT) == {"name": None}
    for op, value in (("ne", "x"), ("ne", None), ("eq", None), ("lt", 1)):
        assert not holds(RFC_DOCUMENT, path, op, value)


@cases(
    ("seen", "op", "value", "expected"),
    [
        (1, "eq", 1.0, True),
        (1, "eq", True, False),
        (True, "eq", 1, False),
        ("1", "eq", 1, False),
        (None, "eq", None, True),
        (0, "eq", None, False),
        (1, "ne", 2, True),
        (1, "ne", 1.0, False),
        ("1", "ne", 2, False),
        (True, "ne", 0, False),
        (None, "ne", "x", False),
        ("x", "ne", None, True),
        (None, "ne", None, False),
        ("b", "in", ["a", "b"], True),
        (1, "in", [True, "1"], False),
        (["a"], "in", ["a"], False),
        ("a label", "contains", "label", True),
        (["bug", "ui"], "contains", "bug", True),
        (["bug", "ui"], "contains", "bu", False),
        ([1], "contains", True, False),
        ({"bug": 1}, "contains", "bug", False),
        ("12", "contains", 1, False),
        ("refs/heads/main", "startsWith", "refs/heads/", True),
        (["refs"], "startsWith", "refs", False),
        (2**60, "gt", 2**60 - 1, True),
        (0.3, "gte", 0.3, True),
        (3, "lt", 3, False),
        (3, "lte", 3.5, True),
        ("3", "gt", 2, False),
        (True, "gt", 0, False),
        (None, "exists", True, True),
        (None, "exists", False, False),
    ],
)
def test_a_clause_holds_for_a_value_of_its_own_type(seen, op, value, expected):
    assert holds({"at": seen}, "/at", op, value) is expected


def test_workers_know_each_operation():
    assert {op.value for op in Op} == OPS_OF_WORKERS


@given(VALUES, SCALARS)
def test_of_eq_and_ne_one_holds_where_the_types_are_alike_and_else_none(seen, value):
    both = [holds({"at": seen}, "/at", op, value) for op in ("eq", "ne")]
    alike = type(json.loads(json.dumps(seen))) is type(value) or (
        {type(seen), type(value)} <= {int, float}
    )
    assert sum(both) == (alike or (value is None and seen is not None))


@given(VALUES, OPS, VALUES)
def test_a_clause_is_refused_or_decides_for_any_document(seen, op, value):
    clause = {"path": "/at", "op": op, "value": value}
    try:
        clauses = WhereField().run_validation([clause])
    except ValidationError:
        return
    for document in (seen, {"at": seen}, [seen]):
        failing = first_failing(clauses, document)
        assert failing is None or len(failing.saw or "") <= 201


@given(st.lists(SCALARS, min_size=1), SCALARS)
def test_a_list_contains_its_items_and_no_value_of_another_type(seen, value):
    assert all(holds({"at": seen}, "/at", "contains", item) for item in seen)
    for other in (value, True, 1, 1.0, "1", None):
        holds({"at": seen}, "/at", "contains", other)


@given(st.text(), VALUES)
def test_a_key_is_found_under_its_escaped_name(key, value):
    path = "/" + key.replace("~", "~0").replace("/", "~1")
    assert pick({"found": path}, {key: value}) == {"found": value}


def test_the_first_clause_that_does_not_hold_is_shown_with_what_it_saw():
    clauses: list[dict[str, Any]] = [
        {"path": "/action", "op": "eq", "value": "opened"},
        {"path": "/draft", "op": "eq", "value": False},
        {"path": "/none", "op": "eq", "value": 1},
    ]
    document = {"action": "opened", "draft": True}
    failing = first_failing(clauses, document)
    assert failing is not None
    assert failing.as_json() == {"path": "/draft", "op": "eq", "value": False, "saw": "true"}
    nothing = first_failing(clauses[2:], document)
    assert nothing is not None
    assert nothing.saw is None
    assert first_failing(clauses[:1], document) is None
    assert first_failing([], document) is None


def test_of_a_long_value_200_characters_are_shown():
    for long in ("ü" * 250_000, list(range(100_000)), {"a": "b" * 300}):
        failing = first_failing([{"path": "/at", "op": "eq", "value": 1}], {"at": long})
        assert failing is not None
        whole = json.dumps(long, ensure_ascii=False, separators=(",", ":"))
        assert failing.saw == f"{whole[:200]}…"


def test_only_a_string_a_number_or_a_boolean_is_a_scalar():
    document = {"a": "x", "b": 0, "c": False, "d": None, "e": [], "f": {}}
    found = [scalar_at(f"/{name}", document) for name in "abcdefg"]
    assert found == ["x", 0, False, None, None, None, None]


CLAUSE = {"path": "/a", "op": "eq", "value": 1}


@cases(
    "where",
    [
        "x",
        {},
        [1],
        ["path"],
        [None],
        [{}],
        [{"path": "/a", "op": "eq"}],
        [CLAUSE | {"more": 1}],
        [CLAUSE | {"path": "a"}],
        [CLAUSE | {"path": "/~"}],
        [CLAUSE | {"path": "/~2"}],
        [CLAUSE | {"path": 1}],
        [CLAUSE | {"path": "/" + "a" * 500}],
        [CLAUSE | {"op": "matches"}],
        [CLAUSE | {"op": []}],
        [CLAUSE | {"value": []}],
        [CLAUSE | {"value": {}}],
        [CLAUSE | {"op": "in"}],
        [CLAUSE | {"op": "in", "value": []}],
        [CLAUSE | {"op": "in", "value": [[1]]}],
        [CLAUSE | {"op": "exists"}],
        [CLAUSE | {"op": "exists", "value": None}],
        [CLAUSE | {"op": "contains", "value": None, "x": 1}],
        [CLAUSE | {"op": "startsWith"}],
        [CLAUSE | {"op": "gt", "value": "1"}],
        [CLAUSE | {"op": "lte", "value": True}],
        [CLAUSE] * 21,
        [CLAUSE | {"value": "a" * 17_000}],
    ],
)
def test_what_is_no_list_of_clauses_is_refused(where):
    with pytest.raises(ValidationError):
        WhereField().run_validation(where)


def test_twenty_clauses_are_taken_as_they_are():
    assert WhereField().run_validation([CLAUSE] * 20) == [CLAUSE] * 20


@cases(
    "fields", ["x", [], {}, {"": "/a"}, {"a" * 101: "/a"}, {"a": "b"}, {"a": None}, {"a": ["/b"]}]
)
def test_what_is_no_object_of_names_and_paths_is_refused(fields):
    with pytest.raises(ValidationError):
        FieldsField().run_validation(fields)
    with pytest.raises(ValidationError, match="1 to 50"):
        FieldsField().run_validation({str(i): "/a" for i in range(51)})


def test_many_clauses_about_a_long_list_take_hardly_longer_than_one():
    document = {"ids": list(range(60_000))}
    clauses = [{"path": "/ids", "op": "contains", "value": 59_000 + n} for n in range(200)]
    searched = Searched()
    begun = thread_time()
    assert first_failing(clauses[:1], document, searched) is None
    one = thread_time() - begun
    assert first_failing(clauses, document, searched) is None
    assert thread_time() - begun < 20 * one


def test_numbers_that_python_hashes_alike_take_hardly_longer_than_others():
    took = []
    for step in (2**61 - 3, sys.hash_info.modulus):
        document = {"ids": [step * n for n in range(1, 8_000)]}
        begun = thread_time()
        clause = {"path": "/ids", "op": "contains", "value": step * 7_999}
        assert first_failing([clause], document) is None
        took.append(thread_time() - begun)
    assert took[1] < 10 * took[0]


def test_long_strings_are_searched_for_no_more_clauses_than_other_requests_can_wait_for():
    document = {"text": "x" * 256 * 1024}
    clauses = [{"path": "/text", "op": "contains", "value": "x"}] * 512
    searched = Searched()
    assert first_failing(clauses, document, searched) is None
    with pytest.raises(TooLarge):
        first_failing(clauses[:1], document, searched)


def test_the_value_of_a_clause_takes_at_most_four_kib():
    clause = {"path": "/a", "op": "in", "value": ["x" * 4_092]}
    assert WhereField().run_validation([clause])
    clause["value"] = ["x" * 4_093]
    with pytest.raises(ValidationError, match="longer than 4 KiB"):
        WhereField().run_validation([clause])


def test_a_list_of_clauses_is_prepared_once_for_many_documents():
    text = json.dumps([{"path": "/a", "op": "in", "value": list(range(900))}])
    assert prepared.clauses_of(text) is prepared.clauses_of(text)
    (clause,) = prepared.clauses_of(text)
    assert clause.members == {"number": frozenset(range(900))}
