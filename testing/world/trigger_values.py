"""Makes the values that a trigger is created from, and the trigger that the API then answers, for tests."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from pipedai.api.renderers import iso_time
from testing.probes.shapes import A_TIME, AN_ID
from testing.world.plain_fields import defaults_of, samples_of
from triggers.models import EventSource
from triggers.serializers import TriggerBody
from workers.models import Pool
from workspaces.models import DataKey, Environment

_REQUIRED = {"name": "Nightly report", "prompt": "Report.", "mcpUrl": "https://mcp.example/v1"}
# The ids of the pool and the source that SAMPLES names; `add_sample_rows` makes them.
_POOL_ID = UUID("01a20e61-c5a1-7e0c-9d2b-5f6a7b8c9d0e")
_SOURCE_ID = UUID("01a20e61-c5a2-7e0c-9d2b-5f6a7b8c9d0e")
# `runOnceAt` must lie in the future, and is a whole minute as all due times are.
_TOMORROW = (datetime.now(UTC) + timedelta(days=1)).replace(second=0, microsecond=0)
# A valid value of each field that is shown again, other than the one that the cast's trigger has.
SAMPLES = {
    **samples_of(TriggerBody),
    "key": "nightly-report",
    "managedBy": "acme/agents",
    "prompt": "Do more.",
    "schedule": "0 9 * * *",
    "runOnceAt": iso_time(_TOMORROW),
    "workerId": None,
    "poolId": str(_POOL_ID),
    "connectionId": None,
    "outputSchema": {
        "type": "object",
        "required": ["count"],
        "properties": {"count": {"const": 1}},
    },
    "on": [
        {
            "sourceId": str(_SOURCE_ID),
            "types": ["push"],
            "where": None,
            "fields": {"ref": "/ref"},
            "coalesce": None,
        }
    ],
    "approvals": [
        {
            "tools": ["send_mail"],
            "when": "possible_effect",
            "approverRole": "operator",
            "notRequester": True,
            "expiresAfterSeconds": 60,
        }
    ],
    "before": {
        "tool": "list_pulls",
        "arguments": {"state": "open"},
        "runIf": [{"path": "/items/0", "op": "exists", "value": True}],
    },
}
# A valid value of each field of which only its presence is shown, and the name under which that is.
SECRET_SAMPLES = {
    "mcpHeaders": ({"x-api-key": "a-planted-header-value"}, "hasMcpHeaders"),
    "webhookSecret": ("a-planted-webhook-secret", "hasWebhookSecret"),
}


def add_sample_rows(environment: Environment) -> None:
    """Makes the pool and the source that SAMPLES names. The secrets of the source can't be opened."""
    EventSource.objects.create(
        id=_SOURCE_ID,
        environment=environment,
        name="Sample",
        scheme="github",
        secrets=b"no secrets",
        secrets_key=DataKey.objects.get(environment=environment),
    )
    Pool.objects.create(id=_POOL_ID, environment=environment, name="Sample")


def trigger_values(**overrides: Any) -> dict[str, Any]:
    """Returns the validated values of a minimal body, with some replaced, by their attribute names. Runs are retried
    also after effects, so that tests of retries need no counts of tool calls.
    """
    body = TriggerBody(data=_REQUIRED)
    body.is_valid(raise_exception=True)
    return {**body.validated_data, "retry_after_effects": True, **overrides}


def trigger_shown(environment_id: Any, **changes: Any) -> dict[str, Any]:
    """The whole trigger that the API answers for a minimal body, with some values (by their names in the API) replaced.

    A new field of TriggerSerializer belongs here as well, unless it is a plain field of TriggerBody.
    """
    return {
        **defaults_of(TriggerBody),
        "id": AN_ID,
        "key": None,
        "managedBy": None,
        "environmentId": str(environment_id),
        "workerId": None,
        "poolId": None,
        "connectionId": None,
        "name": "Nightly report",
        "prompt": "Report.",
        "mcpUrl": "https://mcp.example/v1",
        "hasMcpHeaders": False,
        "mcpHeaderNames": None,
        "schedule": None,
        "runOnceAt": None,
        "on": [],
        "nextRunAt": None,
        "health": "idle",
        "outputSchema": None,
        "approvals": None,
        "before": None,
        "hasWebhookSecret": False,
        "lastDueAt": None,
        "lastRun": None,
        "lastSuccessAt": None,
        "createdAt": A_TIME,
        "updatedAt": A_TIME,
        **changes,
    }
