"""Our handler finds the view of a path as Django does, and by the path's shape when it has seen it before."""

import re
from uuid import uuid4

import pytest
from django.urls import Resolver404, get_resolver

from pipedai.tests.test_wsgi import environ
from pipedai.wsgi import application
from testing.world.cases import cases
from testing.world.routes import ROUTES


def resolve(path):
    return application.resolve_request(application.request_class(environ("GET", path)))


@cases("route", sorted({route.route for route in ROUTES}))
def test_it_finds_what_django_finds(route):
    for _ in range(3):
        path = re.sub(r"<uuid:\w+>", lambda _: str(uuid4()), f"/api/v1/{route}")
        ours, djangos = resolve(path), get_resolver().resolve(path)
        for name in ("func", "args", "kwargs", "url_name", "route", "namespaces", "view_name"):
            assert getattr(ours, name) == getattr(djangos, name)


@cases(
    "wrong",
    ["*", "", "0{id}", "{id}0", "{id}/", "{id}{id}", "{ID}", "x"],
)
def test_it_takes_no_other_path_for_a_known_one(wrong):
    id_ = str(uuid4())
    resolve(f"/api/v1/workers/{id_}/poll")
    part = wrong.format(id=id_, ID="ABCDEF01" + id_[8:])
    with pytest.raises(Resolver404):
        resolve(f"/api/v1/workers/{part}/poll")
    with pytest.raises(Resolver404):
        resolve(f"/api/v1/workers/{part}/poll".replace("poll", id_))
