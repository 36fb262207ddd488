"""A run with an output schema succeeds only with an output that fits it."""

from __future__ import annotations

from typing import Any

import pytest
from bin import claude

from .conftest import Machines
from .steps import Step, output, say
from .working import Machine

pytestmark = pytest.mark.long

SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}, "note": {"type": "string"}},
    "required": ["n"],
}


@pytest.mark.parametrize("version", claude.VERSIONS)
def test_an_output_that_fits_comes_with_the_run_but_no_header_of_the_server(
    machine_of: Machines, version: str
) -> None:
    machine = machine_of(version)
    place = machine.around.mcp.place()
    given = {"n": 5, "note": f"The server said {place.secret}."}
    run = machine.run(output(given), say("There."), place=place, outputSchema=SCHEMA)
    assert run["status"] == "succeeded", run["errorMessage"]
    assert run["output"] == {"n": 5, "note": "The server said [redacted]."}


@pytest.mark.parametrize(
    ("steps", "schema", "sentence"),
    [
        ((say("I just say it: 5."),), SCHEMA, "There is no output"),
        ((output({"n": "five"}),) * 9, SCHEMA, "did not produce the output"),
        ((output({"n": 5, "note": "long " * 14_000}),), SCHEMA, "bytes of JSON, more than 65536"),
    ],
)
def test_without_an_output_that_fits_there_is_no_success(
    machine: Machine, steps: tuple[Step, ...], schema: dict[str, Any], sentence: str
) -> None:
    run = machine.run(*steps, outputSchema=schema)
    assert (run["status"], run["faultClass"], run["output"]) == ("failed", "client", None)
    assert sentence in run["errorMessage"]
