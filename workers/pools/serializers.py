"""Reads the bodies of requests about pools, and renders pools for the API."""

from rest_framework import serializers

from pipedai.api.fields import NameField, TextField
from pipedai.api.serializers import RowSerializer, StrictBody
from workspaces.tenant_columns import KeyField, LabelField


class PoolBody(StrictBody):
    key = KeyField()
    managedBy = LabelField()
    name = NameField(max_length=200)
    description = TextField(max_length=2000, allow_blank=True, default="")


class PoolWorkersSerializer(RowSerializer):
    """How many workers a pool has, how many of them are online, and how many of these can take another run now."""

    total = serializers.IntegerField()
    online = serializers.IntegerField()
    free = serializers.IntegerField()


class PoolSerializer(RowSerializer):
    """A pool."""

    id = serializers.UUIDField()
    key = serializers.CharField(allow_null=True)
    managedBy = serializers.CharField(allow_null=True)
    environmentId = serializers.UUIDField()
    name = serializers.CharField()
    description = serializers.CharField()
    workers = PoolWorkersSerializer()
    createdAt = serializers.DateTimeField()
