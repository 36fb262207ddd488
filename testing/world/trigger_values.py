"""Makes the values that a trigger is created from, for tests and demo data."""

from typing import Any

from triggers.serializers import TriggerBody

_REQUIRED = {"name": "Nightly report", "prompt": "Report.", "mcpUrl": "https://mcp.example/v1"}


def trigger_values(**overrides: Any) -> dict[str, Any]:
    """What the API's own validation makes of a minimal body, with some values (by attribute) replaced."""
    body = TriggerBody(data=_REQUIRED)
    body.is_valid(raise_exception=True)
    return {**body.validated_data, **overrides}
