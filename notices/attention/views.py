"""The endpoint of what needs attention in an environment."""

from uuid import UUID

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from notices.attention.serializers import AttentionItemSerializer
from notices.attention.sources import find_attention
from pipedai.api.schema.operation import Operation, answer
from workspaces.access import IsViewer, TenantViewSet


class AttentionViewSet(TenantViewSet):
    """What somebody has to see to in an environment."""

    tag = "Overview"
    permissions = {"retrieve": IsViewer}

    @Operation(
        "GET /environments/{environmentId}/attention",
        id="getAttention",
        summary="Get what needs attention",
        answers={
            200: answer(
                "Attention",
                "What needs attention, the most urgent first.",
                items=AttentionItemSerializer(many=True),
                total=serializers.IntegerField(),
            )
        },
    )
    def retrieve(self, request: Request, environment_id: UUID) -> Response:
        """Answers with the most urgent items, and with how many there are."""
        items, total = find_attention(environment_id)
        return Response({"items": AttentionItemSerializer(items, many=True).data, "total": total})
