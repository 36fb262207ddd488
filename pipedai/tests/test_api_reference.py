"""API.md describes each route: its callers, its fields and parameters, its answers, and its audit actions."""

import json
import re
from typing import Any

from django.conf import settings
from rest_framework import serializers
from rest_framework.fields import empty

from pipedai.api import service
from pipedai.api.error_codes import ErrorCode
from pipedai.api.fields import MoneyField
from pipedai.api.schema import reference
from pipedai.env import BASE_DIR
from testing.probes.api_urls import is_metered, is_throttled, operation_of_action
from testing.probes.error_codes import statuses_by_code
from testing.world.cases import cases
from testing.world.routes import ROUTES
from triggers.runs.serializers import RunDetailSerializer, RunSerializer

TEXT = (BASE_DIR / "API.md").read_text()
SECTIONS = {
    f"{method} {re.sub(r':[A-Za-z]+', ':id', path[1:])}": text
    for method, path, text in re.findall(
        r"^### `([A-Z]+) (/\S*)`\n(.*?)(?=^##|\Z)", TEXT, re.MULTILINE | re.DOTALL
    )
}

WITH_BODY = [route for route in ROUTES if route.method in {"POST", "PATCH"}]
CHANGES = [route for route in ROUTES if route.method != "GET"]
READS = [route for route in ROUTES if route.method == "GET"]


def section_of(route):
    heading = re.sub(r"<uuid:\w+>", ":id", f"{route.method} {route.route}")
    assert heading in SECTIONS, (
        f"API.md has no section for {route}: see An endpoint, CONTRIBUTING.md"
    )
    return SECTIONS[heading]


def documented(route):
    return reference.endpoint(*operation_of_action(*route.key).endpoint.split(" "))


def explained(route):
    """The section, and the one to which it links for what its fields or parameters mean."""
    other = documented(route).explained_by
    return section_of(route) + (other.text if other else "")


def answers_of(route):
    return documented(route).answers


@cases("route", WITH_BODY)
def test_every_field_of_a_body_is_explained(route):
    body = operation_of_action(*route.key).body
    text = explained(route)
    missing = [name for name in (body().fields if body else ()) if f"`{name}`" not in text]
    assert missing == [], f"API.md does not explain these fields in the section of {route}"


@cases("route", READS)
def test_every_parameter_of_a_list_is_explained(route):
    filters = operation_of_action(*route.key).filters
    text = explained(route)
    names = tuple(filters.base_filters) if filters else ()
    missing = [name for name in names if not re.search(rf"`\??{name}\b=?", text)]
    assert missing == [], f"API.md does not explain these parameters in the section of {route}"


def names_in_tables(route):
    """The names in the section's tables of fields and of parameters, or None if it has none."""
    tables = re.findall(
        r"^\| (?:field|parameter) \|.*\n\|[ -|]+\n((?:\|.*\n)+)", section_of(route), re.MULTILINE
    )
    cells = [cell for rows in tables for cell in re.findall(r"^\| (.+?) \|", rows, re.MULTILINE)]
    return {name for cell in cells for name in re.findall(r"`\??(\w+)`", cell)} if tables else None


@cases("route", [each for each in ROUTES if names_in_tables(each)])
def test_a_table_names_what_the_service_takes_and_nothing_else(route):
    operation = operation_of_action(*route.key)
    fields = operation.body().fields if operation.body else ()
    filters = tuple(operation.filters.base_filters) if operation.filters else ()
    others = [each["name"] for each in operation.parameters if each["in"] == "query"]
    taken = {*fields, *filters, *others}
    named = names_in_tables(route)
    where = f"of {operation.endpoint} in API.md"
    assert named - taken == set(), f"no serializer or filter set has these of the table {where}"
    assert taken - named == set(), f"the table {where} lacks these"


# The service that hashes a password refuses a shorter one.
(MIN_PASSWORD,) = (
    each["OPTIONS"]["min_length"] for each in settings.AUTH_PASSWORD_VALIDATORS if "OPTIONS" in each
)
# How API.md tells the bounds and the default of a field.
NUMBER = r"([\d,]*\d)"
FROM_TO = re.compile(rf"\b{NUMBER}(?: \(default\))? to {NUMBER}\b")
AT_MOST = re.compile(rf"\b(?:[Aa]t most|[Uu]p to) {NUMBER}\b(?! KiB)")
DEFAULT = re.compile(r"(?:`([^`]+)`|(\S+)) by default|`?(\w+)`? \(default\)")


def bounds_told(text):
    """The least and the greatest length or number that a field's description tells, each None if it does not."""
    if found := FROM_TO.search(text):
        return tuple(int(each.replace(",", "")) for each in found.groups())
    found = AT_MOST.search(text)
    return None, found and int(found[1].replace(",", ""))


def bounds_declared(name, field):
    """The least and the greatest length or number of a field, each None if it has none."""
    if isinstance(field, MoneyField):
        return 0, field.MAX
    if isinstance(field, serializers.CharField):
        least = MIN_PASSWORD if name == "password" else field.min_length or 1
        return 0 if field.allow_blank else least, field.max_length
    least, greatest = getattr(field, "min_value", None), getattr(field, "max_value", None)
    return least, getattr(field, "max_length", greatest)


def default_told(text):
    found = DEFAULT.search(text)
    return found and next(filter(None, found.groups())).strip('"').lower()


@cases("route", [each for each in ROUTES if each.reads_body])
def test_each_bound_and_default_that_a_table_tells_is_the_fields(route):
    operation: Any = operation_of_action(*route.key)
    texts = documented(route).fields
    for name, field in operation.body().fields.items():
        text = texts.get(name, "")
        where = f"API.md says of {name} in {operation.endpoint}: {text}"
        # The numbers of a list may be those of its items.
        declared = [bounds_declared(name, each) for each in (field, getattr(field, "child", field))]
        least, greatest = bounds_told(text)
        if any(bound is not None for pair in declared for bound in pair):
            assert least in (None, *[pair[0] for pair in declared]), f"{where} {declared}"
            assert greatest in (None, *[pair[1] for pair in declared]), f"{where} {declared}"
        if field.default not in (None, empty) and text and not operation.partial:
            assert default_told(text) == json.dumps(field.default).strip('"').lower(), where


def test_a_single_runs_further_fields_are_named():
    further = set(RunDetailSerializer().fields) - set(RunSerializer().fields)
    assert all(f"`{name}`" in SECTIONS["GET runs/:id"] for name in further)


@cases("route", ROUTES)
def test_every_status_that_a_caller_gets_is_among_its_answers(route):
    missing = set(route.statuses.values()) - set(answers_of(route))
    assert missing == set(), f"`Answers:` of {route} in API.md lacks these"


@cases("route", [r for r in ROUTES if r.changes])
def test_what_changes_something_says_what_it_tells_the_audit_log(route):
    silent = route.route.endswith(("heartbeat", "events", "sign-off", "device", "watch"))
    assert bool(documented(route).audit) is not silent


@cases("route", ROUTES)
def test_a_throttled_route_says_429_and_its_rate(route):
    # A hook counts in its service, once it knows who has signed.
    throttled = is_throttled(*route.key) or str(route) == "POST hooks/:source"
    says_so = 429 in answers_of(route)
    # These answer only so many calls at the same time, which is not a rate.
    crowded = str(route) in (
        "GET workers/:worker/poll",
        "POST workers/:worker/claim-next",
        "GET environments/:environment/stats",
        "GET environments/:environment/export",
        "GET environments/:environment/events/stream",
        "GET runs/:run/events/stream",
        "GET workers/:worker/events/stream",
        "GET runs/:run/explain",
        "GET triggers/:trigger/explain",
    )
    assert says_so is (throttled or crowded or is_metered(*route.key))
    shown = re.sub(r"<uuid:\w+>", ":id", route.route)
    rates = [
        re.sub(r":\w+", ":id", path.replace("…", "environments/:id"))
        for path in re.findall(
            rf"`{route.method} /?(\S+)`", TEXT.split("### Rates")[1].split("###")[0]
        )
    ]
    assert (shown in rates) is throttled


class TestErrorCodes:
    def test_the_table_of_errors_has_all(self):
        assert set(statuses_by_code()) == set(ErrorCode)

    def test_the_schema_has_all_and_each_error_has_one(self):
        parts = json.loads(service.document())["components"]
        assert parts["schemas"]["ErrorCode"]["enum"] == list(ErrorCode)
        for answer in parts["responses"].values():
            body = answer["content"]["application/json"]["schema"]["$ref"]
            error = parts["schemas"][body.rpartition("/")[2]]
            assert "code" in error["required"]
            assert error["properties"]["code"] == {"$ref": "#/components/schemas/ErrorCode"}

    @cases("route", CHANGES)
    def test_each_409_is_named_in_its_section_and_in_the_schema(self, route):
        conflicts = {code for code, statuses in statuses_by_code().items() if 409 in statuses}
        reason = answers_of(route).get(409, "")
        named = {code for code in conflicts if f"`{code}`" in section_of(route)}
        assert named == {code for code in conflicts if f"`{code}`" in reason}
        assert bool(named) is (409 in answers_of(route))
