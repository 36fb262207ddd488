"""The viewsets of the accounts app, whose endpoints are below /api/v1/."""

from accounts.account_views import (
    AddressViewSet,
    ForgottenPasswordViewSet,
    OwnSessionsViewSet,
)
from accounts.views import MeViewSet, SessionViewSet, UserLookupViewSet
from pipedai.api.views import paths_of

urlpatterns = paths_of(
    SessionViewSet,
    MeViewSet,
    ForgottenPasswordViewSet,
    AddressViewSet,
    OwnSessionsViewSet,
    UserLookupViewSet,
)
