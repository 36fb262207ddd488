"""The lanes recognise the same routes as the URLs do: a renamed route would lose its lane without an error."""

from uuid import UUID

from django.urls import Resolver404, resolve

from accounts.staff_views import StaffAccount, StaffLogin
from pipedai.server.lanes import _PASSWORD_PATHS, LIVE, streamed, waiting_worker
from pipedai.server.tests.asgi_exchange import http_scope
from testing.world.cases import cases

WORKER = "0192b7a0-0000-7000-8000-00000000000a"
WORKERS = f"/api/v1/workers/{WORKER}"
VARIANTS = (
    "{}", "{}/", "/{}", "{}x", "{}\n", "{}/poll", "/api{}",
)  # fmt: skip


def route_of(path: str) -> str | None:
    try:
        return resolve(path).route
    except Resolver404:
        return None


def claiming_worker(scope):
    scope["method"] = "POST"
    return waiting_worker(scope)


def streamed_subject(scope):
    stream = streamed(scope)
    return None if stream is None else stream[1]


@cases(
    ("path", "kind", "lane"),
    [
        (f"{WORKERS}/poll", "worker", waiting_worker),
        (f"{WORKERS}/claim-next", "worker", claiming_worker),
        (f"{WORKERS}/events/stream", "worker", streamed_subject),
        (f"/api/v1/runs/{WORKER}/events/stream", "run", streamed_subject),
        (f"/api/v1/environments/{WORKER}/events/stream", "environment", streamed_subject),
    ],
)
def test_a_lane_and_the_urls_agree(path, kind, lane):
    assert lane(http_scope("GET", path, query="wait=5")) == UUID(WORKER)
    route = path.removeprefix("/").replace(WORKER, f"<uuid:{kind}_id>")
    assert resolve(path).kwargs == {f"{kind}_id": UUID(WORKER)}
    ids = (WORKER, WORKER.upper(), WORKER.replace("-", ""), WORKER[:-1], f"{WORKER}0", "register")
    for variant in VARIANTS:
        for worker_id in ids:
            asked = variant.format(path.replace(WORKER, worker_id))
            takes_lane = lane(http_scope("GET", asked, query="wait=5")) is not None
            assert takes_lane == (route_of(asked) == route), asked


@cases("path", sorted(_PASSWORD_PATHS))
def test_each_path_of_the_password_lane_is_a_route(path):
    assert route_of(path) == path.removeprefix("/")


@cases(
    ("page", "path"),
    [(StaffLogin, "/admin/login/"), (StaffAccount, "/admin/account/")],
)
def test_the_pages_that_take_a_password_are_in_the_password_lane(page, path):
    assert resolve(path).func.view_class is page  # type: ignore[attr-defined]
    assert path in _PASSWORD_PATHS


def test_the_path_that_the_event_loop_answers_is_a_route():
    assert route_of(LIVE) == LIVE.removeprefix("/")
