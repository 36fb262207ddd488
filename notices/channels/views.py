"""The endpoints of channels, of their notices, and of the answers of people whose address was given to a channel."""

from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods
from rest_framework.request import Request
from rest_framework.response import Response

from notices.channels import consent
from notices.channels.consent import standings, stop_notices
from notices.channels.serializers import (
    ChannelBody,
    ChannelSerializer,
    ListedChannelSerializer,
    NoticeFilters,
    NoticeSerializer,
    RefusalBody,
    TokenBody,
    with_recent_notices,
)
from notices.channels.services import CHANNELS, test_channel
from notices.models import Channel, Notice
from pipedai.api.authentication import PostedForm
from pipedai.api.errors import ApiError
from pipedai.api.principal import actor_from, actor_of
from pipedai.api.schema.operation import Operation, answer
from pipedai.api.serializers import NoBody, Values
from pipedai.api.throttling import Rate, Throttle, by_address
from pipedai.api.views import ApiViewSet, IsPublic
from pipedai.events import Actor
from pipedai.replica.reading import from_replica
from workspaces.access import IsAdmin
from workspaces.resource_views import RecentFilters, ResourceViewSet

_A_MINUTE = 60
_QUEUED = answer(
    "QueuedNotices", "The notices that were queued.", notices=NoticeSerializer(many=True)
)


class ChannelViewSet(ResourceViewSet):
    tag = "Notices"
    resource = CHANNELS
    body = ChannelBody
    serializer = ChannelSerializer
    listed = ListedChannelSerializer
    filters = RecentFilters
    readers = IsAdmin
    example = {"name": "On call", "kind": "email", "emails": ["ada@example.com"]}
    change = {"enabled": False}
    permissions = {"test": IsAdmin, "list_notices": IsAdmin}
    environment_rates = {"test": Rate("test-channel", 10, _A_MINUTE)}

    def rows(self) -> QuerySet[Any, Any]:
        return CHANNELS.live.defer("url", "secret")

    def shown(self, rows: list[Channel]) -> Any:
        wanted = {(channel.environment_id, email) for channel in rows for email in channel.emails}
        context = {"standings": standings(wanted)}
        return ChannelSerializer(rows, many=True, context=context).data

    def with_recent(self, shown: list[Any]) -> Any:
        return with_recent_notices(shown)

    @Operation(
        "POST /channels/{channelId}/test",
        id="testChannel",
        summary="Test a channel",
        body=NoBody,
        answers={201: _QUEUED},
    )
    def test(self, request: Request, channel_id: UUID) -> Response:
        # The answer is made in the transaction that queues the notices, so that a request with a 503 queues none.
        with transaction.atomic():
            ids = test_channel(channel_id=channel_id, actor=actor_of(request))
            rows = Notice.objects.filter(id__in=ids).prefetch_related("attempts").order_by("id")
            shown = NoticeSerializer(rows, many=True, context={"shows_bodies": True}).data
        return Response({"notices": shown}, status=201)

    @Operation(
        "GET /channels/{channelId}/notices",
        id="listNotices",
        summary="List notices",
        items=NoticeSerializer,
        filters=NoticeFilters,
    )
    @from_replica
    def list_notices(self, request: Request, channel_id: UUID) -> Response:
        rows = Notice.objects.filter(channel_id=channel_id).prefetch_related("attempts")
        filters = NoticeFilters.read(rows.defer("body"), request)
        return self.page(request, filters.qs, NoticeSerializer, shows_bodies=True)


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
    )
    def confirm(self, request: Request, body: Values) -> None:
        consent.confirm_address(**body, actor=_nobody(request))

    @Operation(
        "POST /addresses/refuse",
        id="refuseAddress",
        summary="Refuse notices",
        body=RefusalBody,
    )
    def refuse(self, request: Request, body: Values) -> None:
        consent.refuse_address(**body, actor=_nobody(request))


def _nobody(request: Request) -> Actor:
    return actor_from(request, "system")


@csrf_exempt
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def stop_page(request: HttpRequest) -> HttpResponse:
    """The page `/account/notices/stop`, to which the header `List-Unsubscribe` of mails leads: a button that ends the
    notices. Mail programs send its POST without cookies and `Origin` (RFC 8058), so it can be no screen of the console.
    """
    context: dict[str, str] = {}
    status = 200
    if request.method == "POST":
        actor = _nobody(PostedForm(request))
        try:
            stop_notices(token=request.GET.get("token", ""), actor=actor)
            context["done"] = (
                "No notices of the environment will come to your e-mail address any more."
            )
        except ApiError as error:
            context["error"], status = error.message, error.status_code
    response = render(request, "notices/stop.html", context, status=status)
    response["Referrer-Policy"] = "no-referrer"
    return response
