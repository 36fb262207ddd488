"""Every query parameter is read, ignored or refused, and none crashes the service."""

from itertools import cycle
from urllib.parse import urlencode

from testing.probes.api_schema import OPERATIONS, is_list, operation_of
from testing.world.cases import cases
from testing.world.routes import ROUTES
from testing.world.undone import undone


def query_names(operation):
    """The query parameters of an operation of the schema."""
    return {each["name"] for each in operation.get("parameters", ()) if each["in"] == "query"}


NAMES = {"unknown"}.union(*map(query_names, OPERATIONS.values()))
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
# Every list reads these by the same function: test_cursors.py tries it at each list. Here one list gets all values.
OF_PAGES, ONE_LIST = {"cursor", "limit"}, "GET workspaces"


@cases("route", READS)
def test_no_value_of_any_parameter_crashes_a_read(stage, route):
    with undone():
        cast, url, client = stage.cast, route.url(stage), route.caller(stage.cast)
        declared = query_names(operation_of(route))
        # A route does not read the parameters that it does not declare, so they may all come at once.
        ignored = zip(sorted(NAMES - declared), cycle(VALUES), strict=False)
        required = urlencode(route.body(cast))
        assert route.send(client, url, cast).status_code == 200

        tried = declared - OF_PAGES if is_list(route) and str(route) != ONE_LIST else declared
        for value in VALUES if tried else ():
            for name in tried - told_at_once(client, url, tried, value):
                status = client.get(f"{url}?{name}={value}").status_code
                assert status in (200, 400, 404, 429), (name, value)
        query = "".join(f"&{name}={value}" for name, value in ignored)
        assert client.get(f"{url}?{required}{query}").status_code == 200


def told_at_once(client, url, names, value):
    """Sends this value of all these parameters, and returns those that need no call of their own: what is refused."""
    answer = client.get(f"{url}?{'&'.join(f'{name}={value}' for name in names)}")
    assert answer.status_code in (200, 400, 404, 429), value
    if answer.status_code == 400:
        return set(answer.json()["details"]["fieldErrors"])
    return names if len(names) == 1 else set()


def test_nor_a_removal(stage):
    cast = stage.cast
    for value in VALUES:
        response = cast.client(cast.owner).delete(
            f"/api/v1/workers/{cast.worker.worker_id}?reassignTo={value}"
        )
        assert response.status_code == 400, value
        assert list(response.json()["details"]["fieldErrors"]) == ["reassignTo"]
