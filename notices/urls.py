"""The viewsets of the notices app, whose endpoints are below /api/v1/."""

from notices.attention.views import AttentionViewSet
from notices.channels.views import (
    AddressViewSet,
    ChannelNoticeViewSet,
    ChannelViewSet,
    EnvironmentChannelViewSet,
)
from notices.views import EnvironmentIncidentViewSet, IncidentViewSet
from pipedai.api.views import paths_of

urlpatterns = paths_of(
    EnvironmentChannelViewSet,
    ChannelViewSet,
    ChannelNoticeViewSet,
    AddressViewSet,
    EnvironmentIncidentViewSet,
    AttentionViewSet,
    IncidentViewSet,
)
