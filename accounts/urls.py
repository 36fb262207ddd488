"""Routes of the accounts app, below /api/v1/."""

from django.urls import path

from accounts.views import MeViewSet, SessionViewSet, UserLookupViewSet

urlpatterns = [
    path("auth/register", SessionViewSet.as_view({"post": "register"})),
    path("auth/login", SessionViewSet.as_view({"post": "login"})),
    path("auth/logout", SessionViewSet.as_view({"post": "logout"})),
    path("auth/change-password", MeViewSet.as_view({"post": "change_password"})),
    path("users/lookup", UserLookupViewSet.as_view({"get": "lookup"})),
    path("auth/me", MeViewSet.as_view({"get": "retrieve"})),
]
