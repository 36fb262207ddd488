"""Routes of channels, below /api/v1/."""

from django.urls import path

from notices.channels.views import (
    AddressViewSet,
    ChannelNoticeViewSet,
    ChannelViewSet,
    EnvironmentChannelViewSet,
)

urlpatterns = [
    path(
        "environments/<uuid:environment_id>/channels",
        EnvironmentChannelViewSet.as_view({"get": "list", "post": "create"}),
    ),
    path(
        "channels/<uuid:channel_id>",
        ChannelViewSet.as_view({"get": "retrieve", "patch": "update", "delete": "destroy"}),
    ),
    path("channels/<uuid:channel_id>/test", ChannelViewSet.as_view({"post": "test"})),
    path("channels/<uuid:channel_id>/notices", ChannelNoticeViewSet.as_view({"get": "list"})),
    path("addresses/confirm", AddressViewSet.as_view({"post": "confirm"})),
    path("addresses/refuse", AddressViewSet.as_view({"post": "refuse"})),
]
