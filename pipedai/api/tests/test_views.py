"""A viewset class that does not declare what the base viewset demands can't be defined."""

import pytest

from pipedai.api.schema.operation import Operation, operation_of
from pipedai.api.views import ApiViewSet, IsSignedIn
from testing.probes.api_urls import api_paths, api_routes

LIST = Operation("GET /things", id="listThings", summary="List things")


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


def viewsets_of(base):
    """Returns the viewsets of the product that derive from a base."""
    found = base.__subclasses__()
    own = {each for each in found if ".tests." not in each.__module__}
    return own.union(*map(viewsets_of, found))


def test_every_action_of_every_viewset_has_a_url():
    operations = [
        operation_of(viewset, action)
        for viewset in viewsets_of(ApiViewSet)
        for action in viewset.permissions
    ]
    told = [(each.method, each.route) for each in operations]
    assert len(told) == len(set(told)), "two actions name the same endpoint"
    # GET /api/v1 itself stands in pipedai/urls.py.
    assert set(told) - api_routes() == {("GET", "")}, "pipedai/urls.py lacks the modules of these"


def test_every_path_is_one_viewsets_and_has_explicit_methods():
    paths = api_paths()
    assert len(paths) == len(set(paths)), "Django would find only the first of these"
    assert not [route for method, route in api_routes() if method == "ANY"]
