"""Whatever a query says, it is read, ignored or refused; nothing crashes (SPEC §2)."""

import json
import re

import pytest

from pipedai.api import openapi
from testing.routes import ROUTES, set_stage

NAMES = (
    "action", "actions", "cursor", "email", "from", "limit", "reassignTo", "status", "targetId", "timezone", "to",
    "triggerId", "wait", "workerId", "unknown",
)  # fmt: skip
VALUES = (
    "",
    "%00",
    "a%00b",
    "%20",
    "%ff%fe",
    "%ed%a0%80",
    "-1",
    "1e9",
    "null",
    "%F0%9F%98%80",
    "x" * 5000,
    "2026-11-24T15:30:00-23:12",
    "0001-01-01T00:00:00%2B23:00",
    "9999-12-31T23:59:59-23:00",
)
READS = [route for route in ROUTES if route.method == "GET"]
_PATHS = json.loads(openapi.FILE.read_bytes())["paths"]
# By path, whatever it calls its ids: the parameters of its query.
DECLARED = {
    re.sub(r"{\w+}", "{}", path): {
        parameter["name"]
        for parameter in operations["get"].get("parameters", ())
        if parameter["in"] == "query"
    }
    for path, operations in _PATHS.items()
    if "get" in operations
}


@pytest.mark.parametrize("route", READS, ids=str)
def test_no_value_of_any_parameter_crashes_a_read(cast, route):
    stage = set_stage(cast)
    client = route.caller(cast)
    declared = DECLARED["/" + re.sub(r"<uuid:\w+>", "{}", route.route)]
    assert declared <= set(NAMES)

    def status(*names):
        query = "&".join(f"{name}={value}" for name in names)
        return client.get(f"{route.url(stage)}?{query}").status_code

    plain = client.get(route.url(stage)).status_code
    assert plain in (200, 400)  # 400 where a parameter is required
    for value in VALUES:
        assert {status(name) for name in declared} <= {200, 400, 404, 429}, value
        # What a route does not declare it ignores.
        others = [name for name in NAMES if name not in declared]
        assert status(*others) == plain, value


def test_nor_a_removal(cast):
    set_stage(cast)
    for value in VALUES:
        response = cast.client(cast.owner).delete(
            f"/api/v1/workers/{cast.worker.worker_id}?reassignTo={value}"
        )
        assert response.status_code == 400, value
        assert list(response.json()["details"]["fieldErrors"]) == ["reassignTo"]
