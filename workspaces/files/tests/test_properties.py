"""Random states and files: apply does what the files say, a second plan is empty, and nothing else is touched."""

from typing import Any

import pytest
from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipedai.api.errors import ApiError
from testing.world.cast import TEST_ACTOR
from workspaces.files import planning, values
from workspaces.files.changes import Request
from workspaces.files.kinds import kinds
from workspaces.roles import Role

ORIGINS = ("https://one.example", "https://two.example")
# The first two have any value or none. The others are of rows that can't be without.
NEEDED = {
    "SIGNING": "planted-signing-secret",
    "HOOK": "https://hooks.example/planted-hook",
    "WEBHOOK": "planted-webhook-secret",
}
SECRETS = st.dictionaries(
    st.sampled_from(["FIRST", "SECOND"]), st.sampled_from(["planted-one", "planted-two"])
).map(lambda some: NEEDED | some)
KEYS = st.sampled_from(["a", "b", "c"])
URLS = st.sampled_from(
    ["https://one.example/mcp", "https://two.example/mcp", "https://two.example"]
)
HEADERS = st.sampled_from(
    [
        None,
        {"x-api-key": {"secret": "FIRST"}},
        {"x-api-key": "planted-clear", "y": {"secret": "SECOND"}},
    ]
)


def some(name: str, fields: dict[str, Any]) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Resources of one kind, with a name that no other of the kind has."""
    optional = {field: values for field, values in fields.items() if field[0] == "?"}
    required = {field: values for field, values in fields.items() if field[0] != "?"}
    rows = st.fixed_dictionaries(
        required, optional={field[1:]: values for field, values in optional.items()}
    )
    return st.dictionaries(KEYS, rows).map(
        lambda found: [
            {"kind": name, "key": key, "name": f"{name} {key}", **row} for key, row in found.items()
        ]
    )


def keys_of(resources: list[dict[str, Any]]) -> st.SearchStrategy[str | None]:
    return st.sampled_from([None, *(each["key"] for each in resources)])


@st.composite
def files(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Resources that refer to each other, in any order."""
    pools = draw(some("pool", {"?description": st.sampled_from(["", "x", "ä\n"])}))
    triggers = draw(
        some(
            "trigger",
            {
                "prompt": st.sampled_from(["Look.", "Look\nagain.\n"]),
                "mcpUrl": URLS,
                "?mcpHeaders": HEADERS,
                "?webhookSecret": st.just({"secret": "WEBHOOK"}),
                "?schedule": st.sampled_from([None, "0 7 * * *", "*/5 * * * *"]),
                "?timezone": st.sampled_from(["UTC", "Europe/Berlin"]),
                "?pool": keys_of(pools),
                "?worker": st.sampled_from([None, "host-1"]),
                "?maxCostUsd": st.sampled_from([None, 1, "1.50", 0.25]),
                "?maxConcurrentRuns": st.sampled_from([None, 1, 3]),
                "?enabled": st.booleans(),
                "?outputSchema": st.sampled_from([None, {"type": "object"}, {"const": 1.0}]),
            },
        )
    )
    sources = draw(
        some(
            "source",
            {
                "scheme": st.just("github"),
                "secrets": st.just([{"secret": "SIGNING"}]),
                "?enabled": st.booleans(),
            },
        )
    )
    heard = st.one_of(
        [st.just({"source": each["key"], "types": ["push"]}) for each in sources]
        + [st.just({"source": each["key"]}) for each in sources]
    )
    for trigger in triggers:
        # A trigger listens to those after it in the alphabet, so that none hears itself.
        later = [each["key"] for each in triggers if each["key"] > trigger["key"]]
        entries = [heard] if sources else []
        entries += [st.just({"trigger": key, "outcome": "any"}) for key in later]
        if entries:
            trigger["on"] = draw(st.lists(st.one_of(entries), max_size=2))
    channels = draw(
        some(
            "channel",
            {
                "type": st.just("webhook"),
                "url": st.just({"secret": "HOOK"}),
                "?secret": st.sampled_from([None, {"secret": "WEBHOOK"}]),
                "?when": st.sampled_from(["always", "failed"]),
                "?triggers": st.sampled_from(
                    [
                        None,
                        *([[each["key"]] for each in triggers]),
                        [e["key"] for e in triggers] or None,
                    ]
                ),
                "?summary": st.sampled_from([None, {"at": "07:00"}]),
            },
        )
    )
    budgets = draw(
        some(
            "budget",
            {
                "period": st.sampled_from(["day", "month"]),
                "?trigger": keys_of(triggers),
                "limitRuns": st.just(5),
                "?limitUsd": st.sampled_from([None, 0, "2.5", 100]),
                "?noticeAtPct": st.sampled_from([[], [50, 50, 10]]),
            },
        )
    )
    return draw(st.permutations([*pools, *sources, *triggers, *budgets, *channels]))


def snapshot(cast: Any) -> dict[str, Any]:
    def shown(row: dict[str, Any]) -> dict[str, Any]:
        return {k: bytes(v) if isinstance(v, memoryview) else v for k, v in row.items()}

    return {kind.name: [shown(row) for row in kind.rows(cast.environment.id)] for kind in kinds()}


def plan(cast: Any, resources: Any, secrets: Any, label: str = "acme") -> Any:
    return planning.plan(
        environment_id=cast.environment.id,
        request=Request(label, resources, secrets),
        actor=TEST_ACTOR,
        role=Role.ADMIN,
    )


def apply(
    cast: Any, resources: Any, secrets: Any, *, label: str = "acme", prune: bool = False
) -> Any:
    digest = plan(cast, resources, secrets, label)["digest"]
    request = Request(label, resources, secrets, digest, prune, ORIGINS)
    return planning.apply(environment_id=cast.environment.id, request=request, actor=TEST_ACTOR)


def holds(cast: Any, before: Any, wanted: Any, secrets: Any, wrong_at: int, prune: bool) -> None:
    apply(cast, before, secrets)
    others = [
        {"kind": "pool", "key": "others", "name": "Others"},
        {"kind": "budget", "key": "others", "name": "Others", "period": "day", "limitRuns": 5},
    ]
    apply(cast, others, {}, label="others")
    state = snapshot(cast)

    planned = plan(cast, wanted, secrets)
    assert snapshot(cast) == state
    wrong = {"kind": "pool", "key": "wrong", "name": "Others"}
    with pytest.raises(ApiError) as refused:
        apply(cast, [*wanted[:wrong_at], wrong, *wanted[wrong_at:]], secrets, prune=prune)
    assert refused.value.message.startswith("pool wrong: ")
    assert snapshot(cast) == state

    applied = apply(cast, wanted, secrets, prune=prune)
    done = [each for each in planned["changes"] if prune or each["action"] != "delete"]
    told = [{k: v for k, v in each.items() if k != "warnings"} for each in applied["changes"]]
    assert told == [{k: v for k, v in each.items() if k != "warnings"} for each in done]
    after = snapshot(cast)
    again = plan(cast, wanted, secrets)["changes"]
    assert {each["action"] for each in again} <= ({"none"} if prune else {"none", "delete"})
    for each in apply(cast, wanted, secrets)["changes"]:
        assert each["action"] == "none"
    assert snapshot(cast) == after

    def untouched(rows: Any) -> Any:
        return {kind: [r for r in of if r["managed_by"] != "acme"] for kind, of in rows.items()}

    assert untouched(after) == untouched(state)
    kept = {(kind, r["key"]) for kind, of in after.items() for r in of if r["managed_by"] == "acme"}
    said = {(each["kind"], each["key"]) for each in wanted}
    assert kept == said if prune else kept >= said

    exported = values.export(
        environment_id=cast.environment.id, managed_by="acme", role=Role.ADMIN
    )["resources"]
    own = [each for each in exported if (each["kind"], each["key"]) in kept]
    changes = plan(cast, own, {})["changes"]
    assert {each["action"] for each in changes} <= {"none"}
    assert "planted" not in repr((planned, applied, exported))


def check(cast: Any, examples: int) -> None:
    @settings(
        max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(files(), files(), SECRETS, st.integers(0, 9), st.booleans())
    def prove(before: Any, wanted: Any, secrets: Any, wrong_at: int, prune: bool) -> None:
        with transaction.atomic():
            holds(cast, before, wanted, secrets, wrong_at, prune)
            transaction.set_rollback(True)

    prove()


def test_a_few_random_files(cast):
    check(cast, 2)


@pytest.mark.long
def test_many_random_files(cast):
    check(cast, 8)
