"""A viewset class that does not declare what the base viewset demands can't be defined."""

import pytest

from pipedai.api.permissions import IsSignedIn
from pipedai.api.views import ApiViewSet
from testing.probes.api_urls import api_routes


def test_an_action_without_a_permission_keeps_the_viewset_from_being_made():
    with pytest.raises(TypeError, match=r"Careless declares no permission for \['destroy'\]"):

        class Careless(ApiViewSet):
            permissions = {"list": IsSignedIn}

            def list(self, request):
                """Declared."""

            def destroy(self, request):
                """Forgotten."""


def test_private_methods_and_overridden_hooks_are_no_actions():
    class Careful(ApiViewSet):
        permissions = {"list": IsSignedIn}

        def list(self, request):
            """Declared."""

        def find_tenant(self, request, **kwargs):
            """The base's."""

        def _helper(self, request):
            """Private."""

    assert Careful.permissions == {"list": IsSignedIn}


def test_every_route_is_a_viewsets_with_explicit_methods():
    assert api_routes()
    assert not [route for method, route in api_routes() if method == "ANY"]
