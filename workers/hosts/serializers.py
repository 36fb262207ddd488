"""Reads the bodies of the host endpoints."""

from pipedai.api.fields import NameField
from pipedai.api.serializers import Body
from workspaces.serializers import PoolIdsField


class RegistrationTokenBody(Body):
    label = NameField(max_length=200, required=False, allow_null=True, default=None)  # type: ignore[assignment]
    poolIds = PoolIdsField()
