"""The `pwk_` substrate: authenticates external systems by their API key (SPEC §3)."""

from datetime import timedelta

from django.db.models import Q
from django.db.models.functions import Now

from pipedai.api.authentication import BearerAuthentication
from pipedai.api.principal import KeyPrincipal
from workspaces.models import ApiKey

# `lastUsedAt` is bookkeeping, written at most this often (SPEC §2).
_NOTE_USE_EVERY = timedelta(seconds=10)


class ApiKeyAuthentication(BearerAuthentication):
    """A `pwk_` key, in its one environment, with its own role."""

    prefix = ApiKey.Kind.PWK.value

    def find(self, digest: bytes) -> KeyPrincipal | None:
        """The live key with this digest in an environment that is not deleted."""
        row = (
            ApiKey.objects.filter(
                Q(expires_at__isnull=True) | Q(expires_at__gt=Now()),
                token_digest=digest,
                kind=ApiKey.Kind.PWK,
                revoked_at__isnull=True,
                environment__deleted_at__isnull=True,
            )
            .annotate(
                use_is_noted=Q(last_used_at__gt=Now() - _NOTE_USE_EVERY),
            )
            .values_list("id", "environment_id", "role", "use_is_noted")
            .first()
        )
        if row is None:
            return None
        key_id, environment_id, role, use_is_noted = row
        if not use_is_noted:
            ApiKey.objects.filter(id=key_id).update(last_used_at=Now())
        return KeyPrincipal(key_id, environment_id, str(role))
