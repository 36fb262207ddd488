"""The endpoints of channels, of their notices, and of the answers of people whose address was given to a channel."""

from typing import Any
from uuid import UUID

from django.db import transaction
from rest_framework.request import Request
from rest_framework.response import Response

from notices.channels import consent, services
from notices.channels.consent import standings
from notices.channels.models import Channel, Notice
from notices.channels.serializers import (
    ChannelBody,
    ChannelSerializer,
    NoticeFilters,
    NoticeSerializer,
    RefusalBody,
    TokenBody,
)
from pipedai.api.pagination import KeysetPaginator
from pipedai.api.principal import actor_of, address_of, principal_of
from pipedai.api.schema.operation import Operation, answer
from pipedai.api.serializers import NoBody, read_body
from pipedai.api.throttling import Rate, Throttle, by_address
from pipedai.api.views import ApiViewSet, IsPublic
from pipedai.events import Actor
from pipedai.ids import current_request_id
from pipedai.replica.reading import from_replica
from workspaces.access import TenantViewSet, find_visible
from workspaces.permissions import IsAdmin

_A_MINUTE = 60
_LIVE = "SELECT id, environment_id FROM channel WHERE deleted_at IS NULL"
_CHANNEL = {"name": "On call", "kind": "email", "emails": ["ada@example.com"]}
_QUEUED = answer(
    "QueuedNotices", "The notices that were queued.", notices=NoticeSerializer(many=True)
)


def shown(channels: list[Channel]) -> Any:
    wanted = {(channel.environment_id, email) for channel in channels for email in channel.emails}
    context = {"standings": standings(wanted)}
    return ChannelSerializer(channels, many=True, context=context).data


def _shown(channel_id: UUID) -> Any:
    return shown([Channel.objects.get(id=channel_id)])[0]


class EnvironmentChannelViewSet(TenantViewSet):
    tag = "Notices"
    permissions = {"list": IsAdmin, "create": IsAdmin}

    @Operation(
        "GET /environments/{environmentId}/channels",
        id="listChannels",
        summary="List channels",
        items=ChannelSerializer,
        says={200: "A list of channels."},
    )
    def list(self, request: Request, environment_id: UUID) -> Response:
        rows = Channel.objects.filter(environment_id=environment_id, deleted_at__isnull=True)
        paginator = KeysetPaginator()
        page = paginator.paginate_queryset(rows.defer("url", "secret"), request, self)
        return paginator.get_paginated_response(shown(page))

    @Operation(
        "POST /environments/{environmentId}/channels",
        id="createChannel",
        summary="Make a channel",
        body=ChannelBody,
        example=_CHANNEL,
        answers={201: ChannelSerializer},
        says={201: "With the channel."},
        errors={
            409: "`key_taken`, `ceiling_reached`, `email_unverified`, or `mail_off`.",
            503: "The secrets can't be sealed.",
        },
        audit=("channel.created",),
    )
    def create(self, request: Request, environment_id: UUID) -> Response:
        channel_id = services.create_channel(
            environment_id=environment_id,
            actor=actor_of(request),
            values=read_body(ChannelBody, request),
        )
        return Response(_shown(channel_id), status=201)


class _OneChannelViewSet(TenantViewSet):
    def find_tenant(self, request: Request, **kwargs: Any) -> None:
        self.access = find_visible(principal_of(request), _LIVE, kwargs["channel_id"])


class ChannelViewSet(_OneChannelViewSet):
    tag = "Notices"
    permissions = {
        "retrieve": IsAdmin,
        "update": IsAdmin,
        "destroy": IsAdmin,
        "test": IsAdmin,
    }
    environment_rates = {"test": Rate("test-channel", 10, _A_MINUTE)}

    @Operation(
        "GET /channels/{channelId}",
        id="getChannel",
        summary="Get a channel",
        answers={200: ChannelSerializer},
        says={200: "With the channel."},
    )
    def retrieve(self, request: Request, channel_id: UUID) -> Response:
        return Response(_shown(channel_id))

    @Operation(
        "PATCH /channels/{channelId}",
        id="updateChannel",
        summary="Change a channel",
        body=ChannelBody,
        partial=True,
        fields_as="POST /environments/{environmentId}/channels",
        example={"enabled": False},
        answers={200: ChannelSerializer},
        says={200: "With the channel; what is as it was changes nothing."},
        errors={
            409: "`key_taken`, `ceiling_reached`, `email_unverified`, or `mail_off`.",
            503: "The secrets can't be sealed.",
        },
        audit=("channel.updated",),
    )
    def update(self, request: Request, channel_id: UUID) -> Response:
        services.update_channel(
            channel_id=channel_id,
            actor=actor_of(request),
            values=read_body(ChannelBody, request, partial=True),
        )
        return Response(_shown(channel_id))

    @Operation(
        "DELETE /channels/{channelId}",
        id="deleteChannel",
        summary="Delete a channel",
        answers={204: None},
        audit=("channel.deleted",),
    )
    def destroy(self, request: Request, channel_id: UUID) -> Response:
        services.delete_channel(channel_id=channel_id, actor=actor_of(request))
        return Response(status=204)

    @Operation(
        "POST /channels/{channelId}/test",
        id="testChannel",
        summary="Test a channel",
        body=NoBody,
        answers={201: _QUEUED},
        says={201: "With the notices."},
        errors={409: "`channel_disabled`, or `email_unverified`."},
        audit=("channel.tested",),
    )
    def test(self, request: Request, channel_id: UUID) -> Response:
        read_body(NoBody, request)
        # The answer is read in the transaction that queues the notices, so that a 503 leaves none behind.
        with transaction.atomic():
            ids = services.test_channel(channel_id=channel_id, actor=actor_of(request))
            rows = Notice.objects.filter(id__in=ids).prefetch_related("attempts").order_by("id")
            body = {"notices": NoticeSerializer(rows, many=True).data}
        return Response(body, status=201)


class ChannelNoticeViewSet(_OneChannelViewSet):
    tag = "Notices"
    permissions = {"list": IsAdmin}
    filter_names = NoticeFilters.names()

    @Operation(
        "GET /channels/{channelId}/notices",
        id="listNotices",
        summary="List notices",
        items=NoticeSerializer,
        filters=NoticeFilters,
        says={200: "A list of notices."},
        errors={400: "A bad parameter."},
    )
    @from_replica
    def list(self, request: Request, channel_id: UUID) -> Response:
        rows = Notice.objects.filter(channel_id=channel_id).prefetch_related("attempts")
        filters = NoticeFilters.read(rows.defer("body"), request)
        paginator = KeysetPaginator()
        page = paginator.paginate_queryset(filters.qs, request, self)
        return paginator.get_paginated_response(NoticeSerializer(page, many=True).data)


class AddressViewSet(ApiViewSet):
    """The endpoints by which the owner of an address says whether it gets notices. The token of the mail suffices."""

    tag = "Notices"
    permissions = {"confirm": IsPublic, "refuse": IsPublic}
    authentication_classes = ()
    throttles = {
        "confirm": (Throttle(Rate("confirm-address", limit=30, seconds=_A_MINUTE), by_address),),
        "refuse": (Throttle(Rate("refuse-address", limit=30, seconds=_A_MINUTE), by_address),),
    }

    @Operation(
        "POST /addresses/confirm",
        id="confirmAddress",
        summary="Agree to get notices",
        body=TokenBody,
        answers={204: None},
        says={204: "Also when it was confirmed before."},
        errors={409: "`link_unusable`."},
        audit=("address.confirmed",),
    )
    def confirm(self, request: Request) -> Response:
        consent.confirm_address(**read_body(TokenBody, request), actor=nobody(request))
        return Response(status=204)

    @Operation(
        "POST /addresses/refuse",
        id="refuseAddress",
        summary="Refuse notices",
        body=RefusalBody,
        answers={204: None},
        says={204: "Also when it was refused before."},
        errors={409: "`link_unusable`."},
        audit=("address.refused",),
    )
    def refuse(self, request: Request) -> Response:
        consent.refuse_address(**read_body(RefusalBody, request), actor=nobody(request))
        return Response(status=204)


def nobody(request: Request) -> Actor:
    return Actor("system", None, address_of(request), current_request_id.get() or None)
