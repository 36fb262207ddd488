"""Tests every route with every kind of caller, so that only the right ones are let in."""

import re
from contextlib import nullcontext
from copy import deepcopy

import pytest

from accounts.models import User
from pipedai.env import BASE_DIR
from testing.probes.api_urls import operation_of_action
from testing.world.audiences import CALLERS
from testing.world.cast import bearer, browser, enroll
from testing.world.routes import ROUTES, ROWS
from testing.world.undone import undone
from testing.world.users import UserFactory, use_instant_passwords
from workspaces.models import Membership

APPS = ("pipedai", "accounts", "workspaces", "triggers", "workers", "notices", "audit")

# So many tests divide the routes among them.
SHARES = 4

# How each kind of caller calls.
CLIENTS = {
    "nobody": lambda cast: browser(),
    "stranger": lambda cast: cast.client(cast.stranger),
    "viewer": lambda cast: cast.client(cast.viewer),
    "operator": lambda cast: cast.client(cast.operator),
    "admin": lambda cast: cast.client(cast.admin),
    "owner": lambda cast: cast.client(cast.owner),
    "pwk viewer": lambda cast: cast.key_client("viewer"),
    "pwk operator": lambda cast: cast.key_client("operator"),
    "pwk admin": lambda cast: cast.key_client("admin"),
    "pwk elsewhere": lambda cast: bearer(cast.mint_elsewhere("pwk", role="admin")),
    "wkt": lambda cast: cast.worker_client(),
    "wkt of another": lambda cast: cast.worker_client(cast.register("host-2")),
    "wrk": lambda cast: bearer(cast.mint("wrk")),
    "hos": lambda cast: bearer(cast.host().operator_token),
    "hos elsewhere": lambda cast: bearer(
        enroll(cast.strange_environment, cast.stranger, "host-1").operator_token
    ),
    "deactivated": lambda cast: _deactivated(cast),
}


def _deactivated(cast):
    """Returns the client of an owner who was deactivated after logging in."""
    user = UserFactory.create()
    Membership.objects.create(environment=cast.environment, user=user, role="owner")
    client = cast.client(user)
    User.objects.filter(id=user.id).update(is_active=False)
    return client


def test_each_row_of_the_table_is_of_an_operation():
    ids = {operation_of_action(*route.key).id for route in ROUTES}
    assert set(ROWS) - ids == set(), "testing/world/routes.py has rows of no operation"


def last_word_of(route):
    return [word for word in route.route.split("/") if not word.startswith("<")][-1]


def test_every_path_is_called_by_a_test_of_its_own():
    """A test that calls a path has the path's last word after a slash; tests of all routes do not spell it out."""
    files = [path for app in APPS for path in (BASE_DIR / app).rglob("tests/**/*.py")]
    texts = "".join(path.read_text() for path in files)
    words = {last_word_of(route): str(route) for route in ROUTES}
    missing = [name for word, name in words.items() if not re.search(rf"/{word}\b", texts)]
    assert missing == [], 'no test beside the app calls these: see "An endpoint" in CONTRIBUTING.md'


def test_every_kind_of_caller_is_tried():
    assert tuple(CLIENTS) == CALLERS
    assert all(set(route.but) <= set(CALLERS) for route in ROUTES)


@pytest.mark.parametrize("share", range(SHARES))
def test_each_caller_gets_the_status_of_the_table(stage, settings, share):
    """Several routes share the callers, who take longer to make than their calls."""
    use_instant_passwords(settings)
    cast = stage.cast
    clients = {caller: client_of(cast) for caller, client_of in CLIENTS.items()}
    cookies = {caller: deepcopy(client.cookies) for caller, client in clients.items()}
    for route in ROUTES[share::SHARES]:
        statuses = {}
        with undone():
            alike = route.with_one_body(cast)
            for caller, client in clients.items():
                client.cookies = deepcopy(cookies[caller])
                acts = route.changes and route.statuses[caller] < 400
                with undone() if acts else nullcontext():
                    statuses[caller] = alike.send(client, route.url(stage), cast).status_code
        assert statuses == route.statuses, (
            f"{route}: API.md says who may call it, and testing/world/routes.py what differs"
        )
