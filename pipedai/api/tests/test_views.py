"""A viewset class that does not declare what the base viewset demands can't be defined."""

import pytest

from pipedai.api.schema.operation import Operation, operation_of
from pipedai.api.views import ApiViewSet, IsSignedIn
from testing.probes.api_urls import api_routes

LIST = Operation(id="listThings", summary="List things")


def test_an_action_without_a_permission_keeps_the_viewset_from_being_made():
    with pytest.raises(TypeError, match=r"Careless declares no permission for \['destroy'\]"):

        class Careless(ApiViewSet):
            tag = "Things"
            permissions = {"list": IsSignedIn}

            @LIST
            def list(self, request):
                """Declared."""

            def destroy(self, request):
                """Forgotten."""


def test_an_action_that_does_not_describe_itself_keeps_the_viewset_from_being_made():
    with pytest.raises(TypeError, match=r"Careless declares no @Operation for \['destroy'\]"):

        class Careless(ApiViewSet):
            tag = "Things"
            permissions = {"list": IsSignedIn, "destroy": IsSignedIn}

            @LIST
            def list(self, request):
                """Described."""

            def destroy(self, request):
                """Forgotten."""


def test_actions_without_a_group_keep_the_viewset_from_being_made():
    with pytest.raises(TypeError, match=r"Careless declares no tag for \['list'\]"):

        class Careless(ApiViewSet):
            permissions = {"list": IsSignedIn}

            @LIST
            def list(self, request):
                """Described."""


def test_private_methods_and_overridden_hooks_are_no_actions():
    class Careful(ApiViewSet):
        tag = "Things"
        permissions = {"list": IsSignedIn}

        @LIST
        def list(self, request):
            """Declared."""

        def find_tenant(self, request, **kwargs):
            """The base's."""

        def _helper(self, request):
            """Private."""

    assert Careful.permissions == {"list": IsSignedIn}
    assert operation_of(Careful, "list") is LIST


def test_an_action_from_elsewhere_that_describes_nothing_is_named():
    class Mixin:
        def list(self, request):
            """Not seen when the viewset is defined, because the class is no viewset."""

    class Mixed(Mixin, ApiViewSet):
        pass

    with pytest.raises(LookupError, match=r"Mixed\.list in .*test_views has no @Operation"):
        operation_of(Mixed, "list")


def test_every_route_is_a_viewsets_with_explicit_methods():
    assert api_routes()
    assert not [route for method, route in api_routes() if method == "ANY"]
