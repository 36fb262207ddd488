"""The OpenAPI schema is valid, and says what API.md, the resolver and the permissions say."""

import json
import re
from typing import Any

import pytest
from drf_spectacular.plumbing import ComponentRegistry
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from pipedai.api import service
from pipedai.api.schema import reference
from pipedai.api.schema.auto import ANY_REQUEST
from pipedai.events import ACTIONS
from testing.probes.api_schema import OPERATIONS, SCHEMA, operation_of
from testing.probes.api_urls import api_routes
from testing.world.cases import cases
from testing.world.cast import browser
from testing.world.routes import ROUTES
from triggers.runs.views import RunViewSet

_REGISTRY = Registry().with_resource("openapi", DRAFT202012.create_resource(SCHEMA))


def problems(schema, value):
    """Returns the errors of the value under a schema of the document."""
    pointed = json.loads(json.dumps(schema).replace('"#/components', '"openapi#/components'))
    checks = Draft202012Validator.FORMAT_CHECKER
    validator = Draft202012Validator(pointed, registry=_REGISTRY, format_checker=checks)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]


def section_of(name):
    method, path = name.split(" ")
    return reference.endpoint(method, path)


def statuses_of(name):
    """The statuses that the text of an operation names; `400` in backticks or after a colon is none of its own."""
    text = re.sub(
        r"^```json\n.*?^```\n?", "", section_of(name).text, flags=re.MULTILINE | re.DOTALL
    )
    numbers = r"(?<![`:] )\b(20[0124]|4\d\d|50[03])\b(?! characters)"
    return {int(status) for status in re.findall(numbers, text)}


def by_method(*methods):
    return cases("name", [n for n in OPERATIONS if n.split(" ")[0] in methods])


def test_it_is_openapi_3_1():
    assert SCHEMA["openapi"].startswith("3.1.")
    assert list(OpenAPIV31SpecValidator(SCHEMA).iter_errors()) == []


def test_it_knows_every_route_that_the_resolver_knows_and_no_other():
    def bare(path):
        return re.sub(r"<uuid:\w+>|{\w+}", ":id", path.strip("/"))

    known = {(method, bare(route)) for method, route in api_routes()}
    told = {(name.split(" ")[0], bare(name.split(" ")[1])) for name in OPERATIONS}
    assert known - told == set(), "the schema lacks these"
    assert told - known == set(), "the schema has these, but no module in pipedai/urls.py"


def test_each_operation_has_a_name_of_its_own_that_languages_can_use():
    names = [operation["operationId"] for operation in OPERATIONS.values()]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z]+(?:[A-Z][a-z]*)*", name) for name in names)


@cases("name", OPERATIONS)
def test_the_api_reference_names_the_answers_of_each_operation_and_no_others(name):
    """Only the statuses that any request may get need not be among an operation's answers."""
    said = {int(status) for status in OPERATIONS[name]["responses"]}
    told = set(section_of(name).answers)
    where = f"`Answers:` of {name} in API.md"
    assert said >= ANY_REQUEST
    assert said - told <= ANY_REQUEST, f"{where} lacks these"
    assert told - said == set(), f"the Operation has no serializer for these of {where}"
    assert statuses_of(name) - said == set(), f"the text before {where} names these"


class TestSectionsThatAreWrong:
    """The schema of an operation whose section tells less, or more, than the operation does is not made."""

    def made(self, monkeypatch, text):
        monkeypatch.setattr(
            reference, "endpoint", lambda *_: reference.Section("GET /runs/:id", 0, text)
        )
        view: Any = RunViewSet(action="retrieve", request=None)
        path = "/api/v1/runs/{runId}"
        return view.schema.get_operation(path, path, "", "GET", ComponentRegistry())

    def test_one_without_answers(self, monkeypatch):
        with pytest.raises(LookupError, match="no paragraph `Answers: …` in GET /runs/:id"):
            self.made(monkeypatch, "")

    def test_one_with_a_status_that_does_not_follow_and_has_no_reason(self, monkeypatch):
        with pytest.raises(LookupError, match=r"GET /runs/\{runId\} answers \{409\}"):
            self.made(monkeypatch, "Answers: 200 · 401 · 404 · 409.")
        answers = self.made(monkeypatch, "Answers: 200 · 401 · 404 · 409 `run_state`.")["responses"]
        assert answers["409"]["description"] == "`run_state`."


@cases("route", ROUTES)
def test_every_status_that_a_caller_gets_is_documented(route):
    told = {int(status) for status in operation_of(route)["responses"]}
    assert set(route.statuses.values()) - told == set(), "the Operation lacks these `errors`"


@cases("name", OPERATIONS)
def test_each_audit_action_that_the_api_reference_names_exists(name):
    assert set(section_of(name).audit) <= ACTIONS
    assert OPERATIONS[name].get("x-audit-actions", []) == section_of(name).audit


def test_every_example_is_valid():
    for name, operation in OPERATIONS.items():
        for answer in [operation.get("requestBody", {}), *operation["responses"].values()]:
            for content in answer.get("content", {}).values():
                if "example" in content:
                    assert problems(content["schema"], content["example"]) == [], name
    for name, schema in SCHEMA["components"]["schemas"].items():
        for example in schema.get("examples", ()):
            assert problems(schema, example) == [], name


@by_method("GET")
def test_what_a_read_answers_is_shown_by_an_example(name):
    (content,) = OPERATIONS[name]["responses"]["200"]["content"].values()
    pointed = content["schema"]["$ref"].rpartition("/")[2].removesuffix("Page")
    shown = "example" in content or "examples" in SCHEMA["components"]["schemas"][pointed]
    # The schema document itself has no example. Runs, events and approvals in full, and rows with what a list includes,
    # have some fields more.
    assert shown or pointed in {
        "OpenApi", "RunDetail", "EventDetail", "ApprovalDetail", "ListedTrigger", "ListedWorker", "ListedRevision",
        "ListedChannel", "SignedIn", "Health",
    }  # fmt: skip


def test_anyone_may_read_it_and_nothing_else_may_be_asked_for():
    response = browser().get("/api/v1/openapi.json")
    assert response.status_code == 200
    assert response["Content-Type"] == "application/json"
    assert response.content == service.document()
    assert browser().get("/api/v1/openapi.json", headers={"accept": "text/html"}).status_code == 406
    assert browser().post("/api/v1/openapi.json").status_code == 405


BODIES = sorted(
    {
        operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        for operation in OPERATIONS.values()
        if "$ref" in json.dumps(operation.get("requestBody", {}))
    }
)


@cases("name", BODIES)
def test_a_field_with_a_default_is_optional_in_every_generated_client(name):
    """A `default` would make it required for some generators, and others would send it with every change."""
    body = SCHEMA["components"]["schemas"][name]
    for field, described in body.get("properties", {}).items():
        assert "default" not in described
        text, required = described.get("description", ""), field in body.get("required", [])
        assert not (required and re.search(r"by default|\(default\)", text)), field
        assert required or not text.startswith("Required"), field


@cases("name", ["User", "FoundUser"])
def test_an_answer_has_all_fields_of_a_user(name):
    described = SCHEMA["components"]["schemas"][name]
    assert sorted(described["properties"]) == described["required"]


def test_the_default_of_a_new_things_field_is_told_and_not_of_a_change():
    schemas = SCHEMA["components"]["schemas"]
    made, changed = schemas["CreateTriggerBody"], schemas["UpdateTriggerBody"]
    assert [*made["properties"], "mcpHeadersMode"] == list(changed["properties"])
    assert made["properties"]["maxRetries"]["description"] == "0 to 10; 3 by default."
    assert changed["properties"]["maxRetries"]["description"] == "0 to 10."
    for name, field in changed["properties"].items():
        assert field["description"], name
        assert not re.search("[Rr]equired|default", field["description"]), name
