"""Routes of the accounts app, below /api/v1/."""

from django.urls import path

from accounts.account_views import (
    AddressViewSet,
    ForgottenPasswordViewSet,
    OwnSessionsViewSet,
)
from accounts.views import MeViewSet, SessionViewSet, UserLookupViewSet

urlpatterns = [
    path("auth/register", SessionViewSet.as_view({"post": "register"})),
    path("auth/login", SessionViewSet.as_view({"post": "login"})),
    path("auth/logout", SessionViewSet.as_view({"post": "logout"})),
    path("auth/change-password", MeViewSet.as_view({"post": "change_password"})),
    path("auth/forgot-password", ForgottenPasswordViewSet.as_view({"post": "forgot"})),
    path("auth/reset-password", ForgottenPasswordViewSet.as_view({"post": "reset"})),
    path("auth/verify-email", AddressViewSet.as_view({"post": "verify"})),
    path("auth/resend-verification", AddressViewSet.as_view({"post": "resend"})),
    path("auth/change-email", AddressViewSet.as_view({"post": "change"})),
    path("auth/sessions", OwnSessionsViewSet.as_view({"get": "list"})),
    path("auth/sessions/revoke-others", OwnSessionsViewSet.as_view({"post": "revoke_others"})),
    path("auth/sessions/<uuid:session_id>", OwnSessionsViewSet.as_view({"delete": "destroy"})),
    path("users/lookup", UserLookupViewSet.as_view({"get": "lookup"})),
    path("auth/me", MeViewSet.as_view({"get": "retrieve"})),
]
