"""Reads the bodies of the host endpoints."""

from pipedai.api.fields import NameField
from pipedai.api.serializers import Body
from workspaces.serializers import PoolIdsField


class RegistrationTokenBody(Body):
    """The body of POST /workspaces/:wsId/workers/registration-token, by which a `wrk_` token is minted."""

    label = NameField(max_length=200, required=False, allow_null=True, default=None)  # type: ignore[assignment]
    poolIds = PoolIdsField()
