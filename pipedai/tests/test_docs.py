"""The documents are true: every route, action, dependency and link in them is checked. bin has the tour's test."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.urls import URLPattern, URLResolver, get_resolver

from audit.serializers import AuditEntrySerializer
from bin import claude
from notices.states import NEEDS, Kind
from pipedai.env import BASE_DIR
from pipedai.events import ACTIONS
from pipedai.sql import fetch_all
from testing.probes.api_schema import SCHEMA
from testing.probes.api_urls import operation_of_action, reads_replica
from testing.world.cases import cases
from testing.world.routes import ROUTES
from triggers.explain.answers import DECISIONS, RETRY_CODES
from triggers.reasons import WaitingFor
from triggers.runs.serializers import RunSerializer
from triggers.schedules.views import TickSerializer
from triggers.serializers import TriggerSerializer
from triggers.states import Decision
from triggers.webhooks.views import AttemptSerializer, DeliverySerializer
from workers.protocol.serializers import HandedOutRunSerializer
from workers.serializers import WorkerSerializer
from workspaces.ceilings import PROFILE
from workspaces.files.kinds import kinds
from workspaces.members import INVITATIONS_OF_WORKSPACE
from workspaces.serializers import (
    ApiKeySerializer,
    EnvironmentSerializer,
    MemberSerializer,
    WorkspaceSerializer,
)

README = (BASE_DIR / "README.md").read_text()
API = (BASE_DIR / "API.md").read_text()
DOCUMENTS = sorted(
    path for glob in ("*.md", "docs/**/*.md", "agent/*.md") for path in BASE_DIR.glob(glob)
)
CODE = ("pipedai", "accounts", "workspaces", "triggers", "workers", "notices", "audit", "console")


# --- Words ---------------------------------------------------------------------------------------

# What audit actions are about that is no thing of its own: the demo, a deployment's files, a header, a whole ledger.
NO_THINGS = {"demo", "files", "mcp-token", "runs"}


def test_the_glossary_has_a_word_for_each_thing_that_somebody_can_change():
    rows = re.findall(r"^\| (.+?) \|", (BASE_DIR / "docs/glossary.md").read_text(), re.MULTILINE)
    words = " ".join(rows).lower()
    things = {action.partition(".")[0] for action in ACTIONS} - NO_THINGS
    missing = {each for each in things if each.replace("-", " ") not in words}
    assert missing == set(), "docs/glossary.md has no row for these"


def test_the_page_about_scaling_names_each_list_that_a_replica_answers():
    page = (BASE_DIR / "docs/scaling.md").read_text()
    (told,) = re.findall(
        r"^\| lists of (.+?); the (audit log); all lists of staff", page, re.MULTILINE
    )
    lists = {
        operation_of_action(*route.key).endpoint.rpartition("/")[2].replace("-", " ")
        for route in ROUTES
        if reads_replica(*route.key)
    }
    assert {*re.split(", | and ", told[0]), told[1]} == lists, (
        "the table of docs/scaling.md differs"
    )


# --- Routes --------------------------------------------------------------------------------------


def test_every_route_is_in_the_api_reference_and_no_other():
    headings = re.findall(r"^### `([A-Z]+) (/\S*)`$", API, re.MULTILINE)
    documented = [(method, re.sub(r":\w+", ":id", path)) for method, path in headings]
    routes = list(_routes(get_resolver().url_patterns, ""))
    assert len(documented) == len(set(documented)), "API.md has two sections for one route"
    advice = "see An endpoint in CONTRIBUTING.md"
    assert set(routes) - set(documented) == set(), f"API.md has no section for these: {advice}"
    assert set(documented) - set(routes) == set(), f"no @Operation names these of API.md: {advice}"


def test_the_api_reference_lists_every_rate():
    views = {view.cls for _, _, view in _views(get_resolver().url_patterns, "")}
    rates = {
        *(t.rate for view in views for throttles in view.throttles.values() for t in throttles),
        *(rate for view in views for rate in getattr(view, "environment_rates", {}).values()),
        INVITATIONS_OF_WORKSPACE,
    }
    throttled = {(rate.name, rate.limit, rate.seconds) for rate in rates}
    seconds = {"in 5 seconds": 5, "a minute": 60, "an hour": 3600, "a day": 86_400}
    rows = rf"^\| .*\| (\d+) ({'|'.join(seconds)}) \|"
    documented = re.findall(rows, _section("### Rates"), re.MULTILINE)
    assert sorted((int(limit), seconds[window]) for limit, window in documented) == sorted(
        (limit, window) for _, limit, window in throttled
    )


def test_the_api_reference_lists_every_ceiling():
    listed = re.findall(r"^\| ([\d,]+) .*\| `(\w+)` \|", _section("### Ceilings"), re.MULTILINE)
    assert {name: int(number.replace(",", "")) for number, name in listed} == PROFILE


def _routes(patterns: list[Any], before: str) -> Iterator[tuple[str, str]]:
    """Yields (method, path below /api/v1 with `:id` for each id) for each action."""
    for path, actions, _ in _views(patterns, before):
        shown = re.sub(r"<\w+:\w+>", ":id", path.removeprefix("api/v1"))
        yield from ((method.upper(), shown) for method in actions if method != "head")


def _views(patterns: list[Any], before: str) -> Iterator[tuple[str, dict[str, str], Any]]:
    """Yields (path, its actions by method, view) for each route of the API."""
    for pattern in patterns:
        path = before + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from _views(pattern.url_patterns, path)
        elif isinstance(pattern, URLPattern) and path.startswith("api/v1/"):
            view: Any = pattern.callback
            yield path, view.actions, view


def _section(heading: str) -> str:
    """Returns the text of API.md from a heading to the next one."""
    return re.split(r"^##", API.split(f"{heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


@cases(
    ("section", "serializer"),
    [
        ("The API key", ApiKeySerializer),
        ("The trigger", TriggerSerializer),
        ("The run", RunSerializer),
        ("The worker", WorkerSerializer),
        ("`GET /triggers/:id/ticks`", TickSerializer),
        ("`GET /environments/:envId/members`", MemberSerializer),
        ("`GET /environments/:envId/audit-log`", AuditEntrySerializer),
        ("`GET /workspaces`", WorkspaceSerializer),
        ("`GET /workspaces/:wsId/environments`", EnvironmentSerializer),
    ],
)
def test_an_example_shows_the_fields_that_go_out(section, serializer):
    fields = list(serializer().fields)
    assert list(_example(section)) == fields, "the example in API.md has other fields"


def test_the_example_of_a_poll_shows_the_fields_that_go_out():
    (run,) = _example("`GET /workers/:id/poll`")["runs"]
    # Only a run whose trigger has rules for approvals, looks first, or carries an output over has one of the last ones.
    assert [*run, "approvals", "before", "previous"] == list(HandedOutRunSerializer().fields)


def test_the_example_of_a_delivery_shows_the_fields_that_go_out():
    delivery = _example("The delivery")
    assert list(delivery) == list(DeliverySerializer().fields)
    assert list(delivery["attempts"][0]) == list(AttemptSerializer().fields)


def _example(section: str) -> dict[str, Any]:
    """Returns the section's first JSON example."""
    found = re.search(r"^```json\n(.*?)^```", _section(f"### {section}"), re.MULTILINE | re.DOTALL)
    assert found is not None
    example: dict[str, Any] = json.loads(found[1])
    return example


@cases(
    ("section", "head", "words"),
    [
        ("### `GET /triggers/:id/explain`", "`decision` | ", DECISIONS),
        ("### `GET /runs/:id/explain`", "`code` | the run waits because", WaitingFor),
        ("### `GET /runs/:id/explain`", "`code` | ", RETRY_CODES),
        ("## Incidents", "`kind` | subject | opens when | closes when", Kind.values),
        ("### `GET /environments/:envId/attention`", "`kind` | subject | what it is", NEEDS),
    ],
)
def test_a_table_has_each_word_that_the_answer_can_have(section, head, words):
    (rows,) = re.findall(
        rf"^\| {re.escape(head)} ?\|\n\|[ -|]+\n((?:\|.*\n)+)", _section(section), re.MULTILINE
    )
    told = [
        word
        for cell in re.findall(r"^\|([^|]+)", rows, re.MULTILINE)
        for word in re.findall(r"\w+", cell)
    ]
    assert sorted(told) == sorted(map(str, words))


@cases("line", [r"^`decision` is `fired`", r"^\| `run\.skipped`"])
def test_each_decision_about_a_due_time_is_named_wherever_they_are_listed(line):
    (text,) = re.findall(rf"{line}.*$", API, re.MULTILINE)
    assert {word for word in Decision if word != Decision.FIRED} == set(
        re.findall(r"`(skipped_\w+)`", text)
    )


# --- Audit actions -------------------------------------------------------------------------------


def test_every_action_that_is_emitted_is_in_the_api_reference_and_no_other():
    table = _section("## Audit actions")
    documented = set(re.findall(r"^\| `([a-z.-]+)` \|", table, re.MULTILINE))
    assert documented == _emitted_actions()


def _emitted_actions() -> frozenset[str]:
    """Returns the registered actions that appear as strings in the code outside the registry. A resource puts its
    noun before the words that it emits.
    """
    sources = (path for app in CODE for path in (BASE_DIR / app).rglob("*.py"))
    words = {
        node.value
        for path in sources
        if "tests" not in path.parts and path != BASE_DIR / "pipedai" / "events.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    nouns = [kind.resource.noun for kind in kinds()]
    return ACTIONS & (words | {f"{noun}.{word}" for noun in nouns for word in words})


# --- README --------------------------------------------------------------------------------------


def test_the_readme_opens_with_three_sentences_and_the_two_commands():
    title, sentences, commands = README.split("\n\n")[:3]
    assert title == "# PipedAI API"
    assert len(re.findall(r"\.(?:\s|$)", sentences)) == 3
    assert commands == "```sh\nbin/run\nbin/test\n```"


def test_the_readme_says_of_every_direct_dependency_why_it_is_there():
    tables = (BASE_DIR / "docs" / "dependencies.md").read_text()
    explained = re.findall(r"^\| (?!package |---)(\S+) \| \S.* \|$", tables, re.MULTILINE)
    names = ("requirements", "requirements-otel", "requirements-dev")
    direct = {package for name in names for package in _requirements(f"{name}.in")}
    assert sorted(explained) == sorted([*direct, claude.NPM_NAME])


def _requirements(name: str) -> list[str]:
    lines = (BASE_DIR / name).read_text().splitlines()
    return [re.split(r"[=<>\[]", line)[0] for line in lines if re.match(r"[A-Za-z]", line)]


# --- The database --------------------------------------------------------------------------------


def test_the_constraints_that_the_run_lifecycle_names_are_in_the_database(db: None):
    page = (BASE_DIR / "docs" / "run-lifecycle.md").read_text()
    table = page.split("## What the database refuses\n", 1)[1]
    constraints = re.findall(r"^\| (.+?) \|", table, re.MULTILINE)
    named = {name for cell in constraints for name in re.findall(r"`([a-z_]+)`", cell)}
    there = fetch_all(
        "SELECT conname AS name FROM pg_constraint UNION SELECT relname FROM pg_class", {}
    )
    assert "run_held" in named
    assert named - {row["name"] for row in there} == set()


# --- Links ---------------------------------------------------------------------------------------


@cases("path", DOCUMENTS)
def test_every_link_within_the_project_leads_somewhere(path):
    assert [link for link in _links(path) if not _resolves(path, link)] == []


def _links(path: Path) -> list[str]:
    prose = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)", prose)
    return [link for link in links if not re.match(r"https?://|mailto:", link)]


def _resolves(path: Path, link: str) -> bool:
    target, _, fragment = link.partition("#")
    file = (path.parent / target).resolve() if target else path
    if not file.is_relative_to(BASE_DIR) or not file.exists():
        return False
    return not fragment or fragment in _anchors(file)


def _anchors(path: Path) -> set[str]:
    """Returns the fragments that GitHub makes from the headings."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_table_of_a_webhooks_message_says_which_fields_may_be_null_and_which_words_there_are():
    schemas = SCHEMA["components"]["schemas"]
    section = API.partition("\n## Webhooks\n")[2].partition("\n### ")[0]
    told = dict(re.findall(r"^\| `(\w+)` \| ([^|]*) \|", section, re.MULTILINE))
    fields = schemas["WebhookMessage"]["properties"]
    assert list(told) == list(fields) == list(schemas["WebhookMessage"]["examples"][0])
    for name, schema in fields.items():
        pointed = schemas.get(schema.get("$ref", "").rpartition("/")[2], schema)
        words = pointed.get("enum", [])
        assert re.findall(r"`(\w+)`", told[name]) == words, name
        assert told[name].endswith("or null") is ("null" in schema.get("type", ())), name
