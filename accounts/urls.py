"""The viewsets of the accounts app, whose endpoints are below /api/v1/."""

from accounts.single_sign_on_views import SingleSignOnViewSet
from accounts.views import (
    AddressViewSet,
    ForgottenPasswordViewSet,
    MeViewSet,
    OwnSessionsViewSet,
    SessionViewSet,
    UserLookupViewSet,
)
from pipedai.api.views import paths_of

urlpatterns = paths_of(
    SessionViewSet,
    SingleSignOnViewSet,
    MeViewSet,
    ForgottenPasswordViewSet,
    AddressViewSet,
    OwnSessionsViewSet,
    UserLookupViewSet,
)
