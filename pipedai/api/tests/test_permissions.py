"""Tests every route with every kind of caller, so that only the right ones are let in (SPEC §3, §4)."""

import pytest
from django.db import transaction

from accounts.models import User
from testing.probes.api_urls import api_routes
from testing.world.cast import bearer, browser, enroll
from testing.world.routes import ROUTES, set_stage
from testing.world.users import UserFactory
from workspaces.models import Membership

CALLERS = {
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

# Each column is a caller, in the order of the callers above.
EXPECTED = {
    #                                            people                  | pwk           | wkt   | wrk| hos | deact.
    "GET health":                               "200 200 200 200 200 200 200 200 200 200 200 200 200 200 200 200",
    "GET health/live":                          "200 200 200 200 200 200 200 200 200 200 200 200 200 200 200 200",
    "GET openapi.json":                         "200 200 200 200 200 200 200 200 200 200 200 200 200 200 200 200",
    "POST auth/register":                       "201 201 201 201 201 201 401 401 401 401 401 401 401 401 401 201",
    "POST auth/login":                          "200 200 200 200 200 200 401 401 401 401 401 401 401 401 401 200",
    "POST auth/logout":                         "204 204 204 204 204 204 401 401 401 401 401 401 401 401 401 204",
    "GET auth/me":                              "401 200 200 200 200 200 401 401 401 401 401 401 401 401 401 401",
    "POST auth/change-password":                "401 204 204 204 204 204 401 401 401 401 401 401 401 401 401 401",
    "GET users/lookup":                         "401 200 200 200 200 200 401 401 401 401 401 401 401 401 401 401",
    "GET workspaces":                           "401 200 200 200 200 200 401 401 401 401 401 401 401 401 401 401",
    "POST workspaces":                          "401 201 201 201 201 201 401 401 401 401 401 401 401 401 401 401",
    "GET workspaces/:workspace/environments":   "401 404 200 200 200 200 401 401 401 401 401 401 401 401 401 401",
    "POST workspaces/:workspace/environments":  "401 404 403 403 403 201 401 401 401 401 401 401 401 401 401 401",
    "GET environments/:environment":            "401 404 200 200 200 200 200 200 200 404 401 401 401 401 401 401",
    "PATCH environments/:environment":          "401 404 403 403 200 200 403 403 200 404 401 401 401 401 401 401",
    "DELETE environments/:environment":         "401 404 403 403 403 409 403 403 403 404 401 401 401 401 401 401",
    "GET environments/:environment/members":    "401 404 200 200 200 200 401 401 401 401 401 401 401 401 401 401",
    "POST environments/:environment/members":   "401 404 403 403 201 201 401 401 401 401 401 401 401 401 401 401",
    # The named member is the viewer, so the viewer may delete this membership, which means to leave.
    "PATCH environments/:environment/members/:user":
                                                "401 404 403 403 200 200 401 401 401 401 401 401 401 401 401 401",
    "DELETE environments/:environment/members/:user":
                                                "401 404 204 403 204 204 401 401 401 401 401 401 401 401 401 401",
    "GET environments/:environment/audit-log":  "401 404 403 403 200 200 403 403 200 404 401 401 401 401 401 401",
    "GET environments/:environment/api-keys":   "401 404 200 200 200 200 401 401 401 401 401 401 401 401 401 401",
    "POST environments/:environment/api-keys":  "401 404 403 403 201 201 401 401 401 401 401 401 401 401 401 401",
    "DELETE environments/:environment/api-keys/:key":
                                                "401 404 403 403 204 204 401 401 401 401 401 401 401 401 401 401",
    "GET environments/:environment/triggers":   "401 404 200 200 200 200 200 200 200 404 401 401 401 401 401 401",
    "POST environments/:environment/triggers":  "401 404 403 403 201 201 403 403 201 404 401 401 401 401 401 401",
    "GET environments/:environment/runs":       "401 404 200 200 200 200 200 200 200 404 401 401 401 401 401 401",
    "POST environments/:environment/schedule-preview":
                                                "401 404 200 200 200 200 200 200 200 404 401 401 401 401 401 401",
    "GET triggers/:trigger":                    "401 404 200 200 200 200 200 200 200 404 401 401 401 401 401 401",
    "PATCH triggers/:trigger":                  "401 404 403 403 200 200 403 403 200 404 401 401 401 401 401 401",
    "DELETE triggers/:trigger":                 "401 404 403 403 409 409 403 403 409 404 401 401 401 401 401 401",
    "POST triggers/:trigger/rotate-mcp-token":  "401 404 403 403 200 200 403 403 200 404 401 401 401 401 401 401",
    "GET triggers/:trigger/deliveries":         "401 404 200 200 200 200 200 200 200 404 401 401 401 401 401 401",
    "POST triggers/:trigger/test-webhook":      "401 404 403 403 201 201 403 403 201 404 401 401 401 401 401 401",
    "POST deliveries/:delivery/redeliver":      "401 404 403 403 201 201 403 403 201 404 401 401 401 401 401 401",
    "GET triggers/:trigger/ticks":              "401 404 200 200 200 200 200 200 200 404 401 401 401 401 401 401",
    "POST triggers/:trigger/run":               "401 404 403 201 201 201 403 201 201 404 401 401 401 401 401 401",
    "GET triggers/:trigger/runs":               "401 404 200 200 200 200 200 200 200 404 401 401 401 401 401 401",
    "GET runs/:run":                            "401 404 200 200 200 200 200 200 200 404 401 401 401 401 401 401",
    "POST runs/:run/cancel":                    "401 404 403 200 200 200 403 200 200 404 401 401 401 401 401 401",
    "POST workers/register":                    "401 401 401 401 401 401 401 401 401 401 401 401 201 401 401 401",
    "GET environments/:environment/workers":    "401 404 200 200 200 200 200 200 200 404 401 401 401 401 401 401",
    "GET environments/:environment/dashboard/overview":
                                                "401 404 200 200 200 200 200 200 200 404 401 401 401 401 401 401",
    "GET workers/:worker":                      "401 404 200 200 200 200 200 200 200 404 401 401 401 401 401 401",
    "PATCH workers/:worker":                    "401 404 403 403 200 200 403 403 200 404 401 401 401 401 401 401",
    "DELETE workers/:worker":                   "401 404 403 403 409 409 403 403 409 404 401 401 401 401 401 401",
    "POST workers/:worker/revoke-token":        "401 404 403 403 204 204 403 403 204 404 401 401 401 401 401 401",
    "POST workers/:worker/approve":             "401 404 403 403 200 200 401 401 401 401 401 401 401 401 401 401",
    "GET workers/:worker/poll":                 "401 401 401 401 401 401 401 401 401 401 200 404 401 401 401 401",
    "POST workers/:worker/runs/:run/claim":     "401 401 401 401 401 401 401 401 401 401 200 404 401 401 401 401",
    "POST workers/:worker/runs/:run/start":     "401 401 401 401 401 401 401 401 401 401 200 404 401 401 401 401",
    "POST workers/:worker/runs/:run/heartbeat": "401 401 401 401 401 401 401 401 401 401 200 404 401 401 401 401",
    "POST workers/:worker/runs/:run/complete":  "401 401 401 401 401 401 401 401 401 401 200 404 401 401 401 401",
    "GET environments/:environment/enrollments":
                                                "401 404 403 403 200 200 401 401 401 401 401 401 401 401 401 401",
    "POST environments/:environment/enrollments":
                                                "401 404 403 403 201 201 401 401 401 401 401 401 401 401 401 401",
    "DELETE environments/:environment/enrollments/:enrollment":
                                                "401 404 403 403 204 204 401 401 401 401 401 401 401 401 401 401",
    "POST enrollments/device":                  "201 201 201 201 201 201 201 201 201 201 201 201 201 201 201 201",
    "POST enrollments/redeem":                  "201 201 201 201 201 201 201 201 201 201 201 201 201 201 201 201",
    "GET releases/latest":                      "200 200 200 200 200 200 200 200 200 200 200 200 200 200 200 200",
    "GET workspaces/:workspace/workers":        "401 401 401 401 401 401 403 403 200 404 401 401 401 200 404 401",
    "POST workspaces/:workspace/workers/registration-token":
                                                "401 401 401 401 401 401 403 403 201 404 401 401 401 201 404 401",
    # The host did not register this worker, so it can't see it.
    "POST workspaces/:workspace/workers/:worker/disable":
                                                "401 401 401 401 401 401 403 403 200 404 401 401 401 404 404 401",
    "POST workspaces/:workspace/workers/:worker/enable":
                                                "401 401 401 401 401 401 403 403 200 404 401 401 401 404 404 401",
    "DELETE workspaces/:workspace/workers/:worker":
                                                "401 401 401 401 401 401 403 403 409 404 401 401 401 404 404 401",
    "GET workers/:worker/events/stream":        "401 401 401 401 401 401 403 403 200 404 401 401 401 404 404 401",
}  # fmt: skip


def _deactivated(cast):
    """Returns the client of an owner who was deactivated after logging in."""
    user = UserFactory.create()
    Membership.objects.create(environment=cast.environment, user=user, role="owner")
    client = cast.client(user)
    User.objects.filter(id=user.id).update(is_active=False)
    return client


def test_the_tables_know_every_route_that_the_resolver_knows():
    assert {route.key for route in ROUTES} == api_routes()
    assert set(EXPECTED) == {str(route) for route in ROUTES}


@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_each_caller_gets_the_status_of_the_table(cast, route):
    stage = set_stage(cast)
    statuses = {}
    for caller, client_of in CALLERS.items():
        with transaction.atomic():
            response = route.send(client_of(cast), route.url(stage), cast)
            statuses[caller] = response.status_code
            transaction.set_rollback(True)
    expected = (int(status) for status in EXPECTED[str(route)].split())
    assert statuses == dict(zip(CALLERS, expected, strict=True))
