"""An output is accepted only if it is there, is small enough and fits its schema, in bounded time."""

from __future__ import annotations

import json
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipedai_worker.redact import Redactor
from pipedai_worker.running import outcome
from pipedai_worker.running.outcome import ABSENT, SUCCEEDED, Outcome
from pipedai_worker.running.schema_check import judged

SUCCESS = Outcome(SUCCEEDED, short_message="What it said.", cost_usd=1.0)
OBJECT = {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "integer"}}}}
settle = partial(outcome.settle, redactor=Redactor(["Bearer planted-0123456789"]))
DEEP: Any = 1
for _ in range(900):
    DEEP = [DEEP]


@pytest.fixture
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the checker judge in this process, where its limits and its ends as a process do not matter."""

    def run(command: list[str], *, input: bytes, **_: Any) -> subprocess.CompletedProcess[bytes]:  # noqa: A002
        answer = judged(**json.loads(input))
        return subprocess.CompletedProcess(command, 0, json.dumps(answer).encode())

    monkeypatch.setattr(subprocess, "run", run)


def test_an_output_that_fits_stays_after_a_check_in_a_process_of_its_own() -> None:
    assert settle(SUCCESS, OBJECT, {"a": [1, 2]}).output == {"a": [1, 2]}


@pytest.mark.usefixtures("_in_this_process")
@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (None, {"any": "thing"}),
        ({}, None),
        ({"$ref": "#/$defs/n", "$defs": {"n": {"type": "null"}}}, None),
        ({"$schema": "https://json-schema.org/draft/2020-12/schema", "const": 5}, 5),
    ],
)
def test_an_output_that_fits_stays(schema: Any, value: Any) -> None:
    settled = settle(SUCCESS, schema, value)
    assert (settled.status, settled.output) == ("succeeded", value)
    assert settled.body()["output"] == value


@pytest.mark.usefixtures("_in_this_process")
@pytest.mark.parametrize(
    ("schema", "value", "sentence"),
    [
        (OBJECT, ABSENT, "There is no output"),
        (OBJECT, {"a": [1, "x/~"]}, "At /a/1, the output does not fit its schema: 'x/~' is not"),
        (OBJECT, [], "As a whole, the output does not fit"),
        ({"properties": {"a/b~": {"const": 2}}}, {"a/b~": 1}, "At /a~1b~0, "),
        ({}, "x" * 65_535, "The output has 65537 bytes of JSON, more than 65536."),
        ({}, float("nan"), "The output is not JSON."),
        ({}, [10**309], "The output is not JSON."),
        ({"maxLength": 3}, "x" * 60_000, "As a whole, the output does not fit"),
        ({"$ref": "https://example.com/schema"}, 1, "refers to a schema that is not part of it"),
        ({"$ref": "#/$defs/none"}, 1, "refers to a schema that is not part of it"),
        ({"$ref": "#"}, 1, "nested without an end"),
        ({"pattern": "("}, "x", "the schema is none"),
        ({"type": "no such type"}, "x", "the schema is none"),
    ],
)
def test_another_output_is_the_clients_fault(schema: Any, value: Any, sentence: str) -> None:
    settled = settle(SUCCESS, schema, value)
    assert (settled.status, settled.fault_class) == ("failed", "client")
    assert sentence in settled.short_message
    assert len(settled.short_message) <= 200
    assert settled.error_message == f"{settled.short_message}\nWhat it said."
    assert "output" not in settled.body()
    assert settled.cost_usd == 1.0


def test_a_hostile_pattern_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcome, "CPU_SECONDS", 1)
    patterns = {"anyOf": [{"pattern": "^(a+)+$"}, *[{"pattern": "(a|a)*$"}] * 9]}
    schema = {"anyOf": [{"$ref": "#/$defs/x"}], "$defs": {"x": patterns}}
    began = time.monotonic()
    settled = settle(SUCCESS, schema, "a" * 40 + "!")
    assert (settled.status, settled.fault_class) == ("failed", "client")
    assert "in time" in settled.short_message
    assert time.monotonic() - began < 2 * outcome.LONGEST_SECONDS


def test_nesting_is_bounded() -> None:
    settled = settle(SUCCESS, {"items": {"$ref": "#"}}, DEEP)
    assert settled.status in {"succeeded", "failed"}


def test_without_a_schema_an_output_that_can_not_be_kept_is_dropped() -> None:
    for value in (ABSENT, "x" * 70_000, float("inf")):
        settled = settle(SUCCESS, None, value)
        assert settled.status == "succeeded"
        assert "output" not in settled.body()


@pytest.mark.usefixtures("_in_this_process")
def test_an_output_is_made_storable_and_has_no_secret() -> None:
    value = {"a\0": ["x\ud800", "it is the-secret!"]}
    settled = settle(SUCCESS, {}, value).redacted(Redactor(["the-secret"]))
    assert settled.output == {"a\ufffd": ["x\ufffd", "it is [redacted]!"]}
    # What is left of an output whose secret is a number is no JSON any more.
    settled = settle(SUCCESS, {}, {"n": 12345678}).redacted(Redactor(["12345678"]))
    assert settled.output == {"redacted": True}


def test_a_checker_that_can_not_run_is_the_machines_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcome, "CHECKER", "pipedai_worker.no_such_module")
    settled = settle(SUCCESS, {}, 1)
    assert (settled.status, settled.fault_class) == ("failed", "infra")


def test_a_checker_that_the_machine_kills_is_the_machines_fault(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    killed = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    (tmp_path / "killed_checker.py").write_text(killed)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(outcome, "CHECKER", "killed_checker")
    settled = settle(SUCCESS, {}, 1)
    assert (settled.status, settled.fault_class) == ("failed", "infra")
    assert settled.short_message == "The output could not be checked: the checker was killed."


@pytest.mark.usefixtures("_in_this_process")
@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "integer"}, f"{'x' * 140}planted-0123456789"),
        ({"additionalProperties": False}, {f"{'x' * 102}planted-0123456789": 1}),
        ({"additionalProperties": {"const": 1}}, {f"{'x' * 68}planted-0123456789": 2}),
    ],
)
def test_no_part_of_a_secret_is_left_where_a_text_is_cut(schema: Any, value: Any) -> None:
    outcome = settle(SUCCESS, schema, value)
    assert "x" * 60 in outcome.short_message
    assert "plant" not in outcome.short_message + outcome.error_message
