"""Checks that an `outputSchema` is a JSON Schema 2020-12 that a worker can use without a network.

It validates no value and tries no pattern on a text, because that could take endlessly long.
"""

import re
from collections.abc import Iterator
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema_specifications import REGISTRY
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from pipedai.api.renderers import compact_json, cut

MAX_BYTES = 32 * 1024
MAX_DEPTH = 32
# The largest number of objects, lists and booleans that a schema may have. The whole check spends up to 0.06 ms of
# processor time on each of them.
_MOST_SUBSCHEMAS = 600
# The largest number of items that all lists of a schema may have together. Lists such as `required` are checked item by
# item, and each item takes up to 0.01 ms.
_MOST_ITEMS = 1000
# How many character sets, such as [!-\U0010ffff], all patterns with characters beyond U+00FF may have together, and how
# many characters all patterns of a schema may have together. Python's `re.compile` takes about 2 ms for each such set,
# and 2 µs for each character.
_MOST_WIDE_SETS = 4
_LONGEST_PATTERNS = 4 * 1024
# The largest number of names that a list under the keyword `type` may have. The check compares each name with each
# other, so a long list would take long; JSON Schema has only seven types.
_MOST_TYPES = 64

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_REFERENCES = ("$ref", "$dynamicRef")
# Finds inline flags in a pattern, such as (?i). They are an extension of Python, which other implementations of JSON
# Schema do not know.
_INLINE_FLAGS = re.compile(r"\(\?[aiLmsux-]")
# Finds whether a pattern may have a character beyond U+00FF: as such, or written as an escape like \u0100 or \N{GREEK
# SMALL LETTER ALPHA}.
_WIDE = re.compile(r"[^\x00-\xff]|\\[uUN]")


class BadOutputSchema(Exception):  # noqa: N818 - named as what the value is
    """The value is no JSON Schema 2020-12 or too large. The message is a sentence for users."""


def check_output_schema(schema: Any) -> None:
    """Raises BadOutputSchema unless the value is a JSON Schema 2020-12 of at most MAX_BYTES as compact JSON and
    MAX_DEPTH levels, in which each reference names a schema inside of it and each pattern is valid.
    """
    if not isinstance(schema, dict):
        raise BadOutputSchema("Must be a JSON object.")
    if len(compact_json(schema).encode()) > MAX_BYTES:
        raise BadOutputSchema("Must not be longer than 32 KiB.")
    _check_extent(schema)
    _check_dialect(schema)
    error = next(iter(_METASCHEMA.iter_errors(schema)), None)
    if error is not None:
        place = "/".join(("", *map(str, error.absolute_path)))
        raise BadOutputSchema(f"Not a JSON Schema 2020-12: at {place or '/'}: {cut(error.message)}")
    places = list(_subschemas(schema))
    for place in places:
        _check_dialect(place)
    _check_patterns(places)
    _check_references(schema, places)


def _check_extent(schema: dict[str, Any]) -> None:
    """Refuses a schema whose check would take too long: one with too many levels, objects, lists or items."""
    count = items = 0
    level: list[Any] = [schema]
    for _ in range(MAX_DEPTH):
        containers: list[Any] = []
        for each in level:
            count += 1
            if isinstance(each, dict):
                kinds = each.get("type")
                if isinstance(kinds, list) and len(kinds) > _MOST_TYPES:
                    raise BadOutputSchema(
                        f"Must not name more than {_MOST_TYPES} types in a place."
                    )
                containers += each.values()
            elif isinstance(each, list):
                containers += each
                items += len(each)
        level = [each for each in containers if isinstance(each, dict | list | bool)]
        if not level:
            break
    if any(isinstance(each, dict | list) for each in level):
        raise BadOutputSchema(f"Must not be nested more than {MAX_DEPTH} levels deep.")
    if count > _MOST_SUBSCHEMAS:
        raise BadOutputSchema(
            f"Must not hold more than {_MOST_SUBSCHEMAS:,} objects, lists and booleans."
        )
    if items > _MOST_ITEMS:
        raise BadOutputSchema(f"Its lists must not hold more than {_MOST_ITEMS:,} items.")


def _check_dialect(schema: Any) -> None:
    if isinstance(schema, dict) and "$schema" in schema:
        dialect = schema["$schema"]
        if not isinstance(dialect, str) or dialect.removesuffix("#") != DIALECT:
            raise BadOutputSchema(f"$schema must be {DIALECT}, or be left out.")


def _subschemas(schema: Any) -> Iterator[Any]:
    """Yields the schemas inside of a schema. The value of a keyword such as `const` is no schema, so it is left out."""
    yield schema
    for each in DRAFT202012.subresources_of(schema):
        yield from _subschemas(each)


def _check_patterns(places: list[Any]) -> None:
    patterns: list[str] = []
    for place in places:
        if isinstance(place, dict):
            patterns += place.get("patternProperties", ())
            if "pattern" in place:
                patterns.append(place["pattern"])
    if sum(map(len, patterns)) > _LONGEST_PATTERNS:
        raise BadOutputSchema(
            f"Its patterns must not have more than {_LONGEST_PATTERNS:,} characters."
        )
    if sum(pattern.count("[") for pattern in patterns if _WIDE.search(pattern)) > _MOST_WIDE_SETS:
        raise BadOutputSchema(
            f"Its patterns with characters beyond U+00FF must not hold more than {_MOST_WIDE_SETS} sets."
        )
    for pattern in patterns:
        if _INLINE_FLAGS.search(pattern):
            raise BadOutputSchema(
                f"The pattern {cut(pattern)} has flags, which JSON Schema does not know."
            )
        try:
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError):
            raise BadOutputSchema(f"The pattern {cut(pattern)} is no regular expression.") from None


def _check_references(schema: dict[str, Any], places: list[Any]) -> None:
    """Raises BadOutputSchema unless each `$ref` leads to one of `places`. No other document is fetched."""
    known = {id(place) for place in places}
    resource = DRAFT202012.create_resource(schema)
    uri = resource.id() or ""
    try:
        # Without `crawl`, every lookup of an anchor or an $id would go through the whole schema once more.
        registry: Registry[Any] = Registry().with_resource(uri, resource).crawl()
        for place, resolver in _resolvers(schema, registry.resolver(uri)):
            for keyword in _REFERENCES:
                if keyword in place:
                    _check_reference(place[keyword], resolver, known)
    except ValueError:
        raise BadOutputSchema("An $id or a reference in it is no URI.") from None


def _check_reference(reference: str, resolver: Any, known: set[int]) -> None:
    try:
        target = resolver.lookup(reference).contents
    # The library raises TypeError for a pointer into a number, a boolean or null.
    except (Unresolvable, TypeError):
        raise BadOutputSchema(
            f"The reference {cut(reference)} names no place in this schema; others are never loaded."
        ) from None
    if not isinstance(target, bool) and id(target) not in known:
        raise BadOutputSchema(f"The reference {cut(reference)} names a place that holds no schema.")


def _resolvers(schema: Any, resolver: Any) -> Iterator[tuple[Any, Any]]:
    """Yields each schema that is an object, with a resolver for references relative to its `$id`."""
    if isinstance(schema, dict):
        resolver = resolver.in_subresource(DRAFT202012.create_resource(schema))
        yield schema, resolver
        for each in DRAFT202012.subresources_of(schema):
            yield from _resolvers(each, resolver)


def schema_validator() -> Any:
    """Returns a validator that says whether a value is a JSON Schema 2020-12.

    It checks by one flat schema that is made of the metaschema, because that is ten times as fast. The standard spreads
    the metaschema's rules over seven vocabularies, which refer to each other by `$dynamicRef`. This service adds no
    vocabulary, so each `$dynamicRef` means the whole metaschema.
    """
    root: Any = Draft202012Validator.META_SCHEMA
    rules: dict[str, Any] = {"type": root["type"], "properties": {}, "$defs": {}}
    resolver = REGISTRY.resolver(base_uri=root["$id"])
    vocabularies = [resolver.lookup(part["$ref"]).contents for part in root["allOf"]]
    for each in (*vocabularies, root):
        rules["properties"].update(each["properties"])
        rules["$defs"].update(each.get("$defs", {}))
    return Draft202012Validator(_flat(rules))


def _flat(value: Any) -> Any:
    """Returns a copy of the metaschema's rules in which each reference points into the flat schema itself."""
    if isinstance(value, list):
        return [_flat(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.get("$dynamicRef") == "#meta":
        return {"$ref": "#"}
    flat = {name: _flat(item) for name, item in value.items()}
    if isinstance(value.get("$ref"), str):
        flat["$ref"] = "#" + value["$ref"].partition("#")[2]
    return flat


_METASCHEMA = schema_validator()
