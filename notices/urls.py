"""The viewsets of the notices app, whose endpoints are below /api/v1/."""

from notices.channels.views import (
    AddressViewSet,
    ChannelNoticeViewSet,
    ChannelViewSet,
)
from notices.views import AttentionViewSet, EnvironmentIncidentViewSet, IncidentViewSet
from pipedai.api.views import paths_of

urlpatterns = paths_of(
    ChannelViewSet,
    ChannelNoticeViewSet,
    AddressViewSet,
    EnvironmentIncidentViewSet,
    AttentionViewSet,
    IncidentViewSet,
)
