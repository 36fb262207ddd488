"""Makes the values from which a trigger is created, for tests and demo data."""

from typing import Any

from triggers.serializers import TriggerBody

_REQUIRED = {"name": "Nightly report", "prompt": "Report.", "mcpUrl": "https://mcp.example/v1"}


def trigger_values(**overrides: Any) -> dict[str, Any]:
    """Returns the validated values of a minimal body, with some replaced, by their attribute names."""
    body = TriggerBody(data=_REQUIRED)
    body.is_valid(raise_exception=True)
    return {**body.validated_data, **overrides}
