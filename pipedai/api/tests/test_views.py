"""A viewset class that does not declare what the base viewset demands can't be defined. What it declares is done."""

from types import SimpleNamespace
from typing import Any

import pytest
from rest_framework import serializers

from pipedai.api.schema.operation import Operation, answer, operation_of
from pipedai.api.serializers import NoBody, StrictBody
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
    routes = api_routes()  # First, because it imports the modules with viewsets.
    operations = [
        operation_of(viewset, action)
        for viewset in viewsets_of(ApiViewSet)
        for action in viewset.permissions
    ]
    told = [(each.method, each.route) for each in operations]
    assert len(told) == len(set(told)), "two actions name the same endpoint"
    # GET /api/v1 itself stands in pipedai/urls.py.
    assert set(told) - routes == {("GET", "")}, "pipedai/urls.py lacks the modules of these"


def test_every_path_is_one_viewsets_and_has_explicit_methods():
    paths = api_paths()
    assert len(paths) == len(set(paths)), "Django would find only the first of these"
    assert not [route for method, route in api_routes() if method == "ANY"]


class ThingBody(StrictBody):
    name = serializers.CharField()


def test_an_action_gets_the_values_of_the_body_and_answers_by_the_declared_serializer():
    @Operation(
        "POST /things",
        id="createThing",
        summary="Make a thing",
        body=ThingBody,
        answers={201: answer("Thing", "A thing.", name=serializers.CharField())},
    )
    def create(view, request, body):
        return {**body, "secret": "not declared"}

    made: Any = create(None, SimpleNamespace(data={"name": "lamp"}))
    assert (made.status_code, made.data) == (201, {"name": "lamp"})
    with pytest.raises(serializers.ValidationError):
        create(None, SimpleNamespace(data={"name": "lamp", "more": 1}))


def test_an_action_without_values_answers_204_and_takes_no_field_if_it_declares_none():
    @Operation("POST /things/{thingId}/test", id="testThing", summary="Test a thing", body=NoBody)
    def try_out(view, request, thing_id):
        """Returns nothing."""

    tried: Any = try_out(None, SimpleNamespace(data={}), thing_id=1)
    assert (tried.status_code, tried.data) == (204, None)
    with pytest.raises(serializers.ValidationError):
        try_out(None, SimpleNamespace(data={"more": 1}), thing_id=1)
