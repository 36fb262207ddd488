"""Makes the values that a trigger is created from, and the trigger that the API then answers, for tests."""

from typing import Any
from uuid import UUID

from testing.probes.shapes import A_TIME, AN_ID
from testing.world.plain_fields import defaults_of, samples_of
from triggers.serializers import TriggerBody
from workers.models import Pool
from workspaces.models import Environment

_REQUIRED = {"name": "Nightly report", "prompt": "Report.", "mcpUrl": "https://mcp.example/v1"}
# The id of the pool that SAMPLES names; `add_sample_pool` makes it.
_POOL_ID = UUID("01a20e61-c5a1-7e0c-9d2b-5f6a7b8c9d0e")
# A valid value of each field that is shown again, other than the one that the cast's trigger has.
SAMPLES = {
    **samples_of(TriggerBody),
    "prompt": "Do more.",
    "mcpUrl": "https://mcp.example/v2",
    "schedule": "0 9 * * *",
    "timezone": "Europe/Berlin",
    "workerId": None,
    "poolId": str(_POOL_ID),
    "connectionId": None,
    "maxCostUsd": "2.5",
    "outputSchema": {
        "type": "object",
        "required": ["count"],
        "properties": {"count": {"const": 1}},
    },
    "webhookUrl": "https://hooks.example/done",
    "approvals": [
        {
            "tools": ["send_mail"],
            "when": "possible_effect",
            "approverRole": "operator",
            "notRequester": True,
            "expiresAfterSeconds": 60,
        }
    ],
}
# A valid value of each field of which only its presence is shown, and the name under which that is.
SECRET_SAMPLES = {
    "mcpHeaders": ({"x-api-key": "a-planted-header-value"}, "hasMcpHeaders"),
    "webhookSecret": ("a-planted-webhook-secret", "hasWebhookSecret"),
}


def add_sample_pool(environment: Environment) -> None:
    """Makes the pool that SAMPLES names."""
    Pool.objects.create(id=_POOL_ID, environment=environment, name="Sample")


def trigger_values(**overrides: Any) -> dict[str, Any]:
    """Returns the validated values of a minimal body, with some replaced, by their attribute names."""
    body = TriggerBody(data=_REQUIRED)
    body.is_valid(raise_exception=True)
    return {**body.validated_data, **overrides}


def trigger_shown(environment_id: Any, **changes: Any) -> dict[str, Any]:
    """The whole trigger that the API answers for a minimal body, with some values (by their names in the API) replaced.

    A new field of TriggerSerializer belongs here as well, unless it is a plain field of TriggerBody.
    """
    return {
        **defaults_of(TriggerBody),
        "id": AN_ID,
        "environmentId": str(environment_id),
        "workerId": None,
        "poolId": None,
        "connectionId": None,
        "name": "Nightly report",
        "prompt": "Report.",
        "mcpUrl": "https://mcp.example/v1",
        "hasMcpHeaders": False,
        "schedule": None,
        "timezone": "UTC",
        "nextRunAt": None,
        "maxCostUsd": None,
        "health": "idle",
        "outputSchema": None,
        "approvals": None,
        "webhookUrl": None,
        "hasWebhookSecret": False,
        "lastDueAt": None,
        "lastRun": None,
        "lastSuccessAt": None,
        "createdAt": A_TIME,
        "updatedAt": A_TIME,
        **changes,
    }
