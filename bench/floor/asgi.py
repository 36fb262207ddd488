"""Serves the view behind the same lane and wrapper as the product's own requests."""

from django.conf import settings
from django.core.wsgi import get_wsgi_application

from pipedai.server.lanes import WsgiLane
from pipedai.server.outer import Limits, Outer
from pipedai.server.request_scope import Receive, Scope, Send

_lane = WsgiLane(get_wsgi_application(), threads=settings.WEB_THREADS)


async def _serve(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await _lane(scope, receive, send)
        return
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


application = Outer(
    _serve, limits=Limits(body_bytes=settings.MAX_BODY_BYTES), trusted_proxies=(), production=False
)
