"""Unknown fields are errors in configuration, and the machine protocol ignores them."""

from testing.probes.api_schema import SCHEMA, operation_of
from testing.world.cases import cases
from testing.world.routes import ROUTES
from testing.world.undone import undone

BODIES = [route for route in ROUTES if route.method in {"POST", "PATCH"}]
READ = [route for route in BODIES if route.reads_body]
IGNORED = [route for route in BODIES if not route.reads_body]
TOLERANT = [route for route in READ if route.ignores_unknown_fields]
STRICT = [route for route in READ if not route.ignores_unknown_fields]


def send(stage, route, body):
    client = route.caller(stage.cast)
    return getattr(client, route.method.lower())(route.url(stage), body)


def test_a_typo_in_a_configuration_is_seen(stage):
    for route in STRICT:
        with undone():
            response = send(stage, route, {**route.body(stage.cast), "naem": 1})
        assert response.status_code == 400, route
        assert response.json() == {
            "error": "Validation failed",
            "code": "validation_failed",
            "details": {"fieldErrors": {"naem": ["Unknown field."]}, "formErrors": []},
        }, route


def test_a_long_choice_is_not_repeated_whole(stage):
    cast = stage.cast
    url, body = f"/api/v1/environments/{cast.environment.id}/triggers", {"carry": "x" * 500_000}
    response = cast.client(cast.owner).post(url, body)
    (message,) = response.json()["details"]["fieldErrors"]["carry"]
    assert message.startswith('"xxx')
    assert len(message) == 2000


@cases("route", TOLERANT)
def test_a_newer_worker_or_host_may_say_more(stage, route):
    with undone():
        body = {**route.body(stage.cast), "gpu": {"count": 2}, "nested": [1]}
        response = send(stage, route, body)
    assert response.status_code in {200, 201, route.answer}


def test_a_list_is_no_body(stage):
    for route in READ:
        with undone():
            response = send(stage, route, [])
        assert response.status_code == 400, route
        assert response.json()["details"] == {
            "fieldErrors": {},
            "formErrors": ["The body must be a JSON object."],
        }, route


@cases("route", IGNORED)
def test_an_action_ignores_the_body_if_its_operation_has_none(stage, route):
    with undone():
        response = send(stage, route, [])
    assert response.status_code == route.answer, f"the @Operation of {route} lacks its `body`"


@cases("route", TOLERANT)
def test_the_body_may_be_left_out_where_nothing_is_required(stage, route):
    cast = stage.cast
    with undone():
        response = route.caller(cast).generic("POST", route.url(stage))
    requires = operation_of(route)["requestBody"]["required"]
    assert response.status_code in ({400} if requires else {200, 201, route.answer})


def lists_of(route):
    """The names of the lists in the route's body."""
    for content in operation_of(route)["requestBody"]["content"].values():
        name = content["schema"].get("$ref", "").rpartition("/")[2]
        for field, schema in (
            SCHEMA["components"]["schemas"].get(name, {}).get("properties", {}).items()
        ):
            if schema.get("type") in ("array", ["array", "null"]):
                yield field


def test_of_a_list_that_is_too_long_no_item_is_looked_at(stage):
    seen = set()
    for route in READ:
        for name in lists_of(route):
            with undone():
                response = send(stage, route, {**route.body(stage.cast), name: [""] * 20_000})
            assert len(response.content) < 5000, (route, name)
            seen.add(name)
    assert {"poolIds", "emails", "resources", "on"} <= seen
