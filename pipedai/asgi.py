"""Builds the web process's ASGI application: a lane for each kind of request, wrapped by one outer application."""

import re
from functools import partial

from django.conf import settings

from pipedai import tracing
from pipedai.server.event_stream import EventStreams, FanOut
from pipedai.server.heart import Heart
from pipedai.server.lanes import HookLane, Lanes, PermitLane, WsgiLane, permit_turns
from pipedai.server.listen import Listener, RunNews, connect, connect_as_requests
from pipedai.server.long_poll import AskingLane, LongPoll
from pipedai.server.memory_budget import MemoryBudget
from pipedai.server.outer import Limits, Outer
from pipedai.server.request_scope import App, parse_networks
from pipedai.server.ticket import ISSUER
from pipedai.wakeups import watches
from pipedai.wsgi import application as wsgi


def _application() -> Outer:
    budget = MemoryBudget(settings.MEMORY_BUDGET_MIB)
    threads = WsgiLane(wsgi, threads=settings.WEB_THREADS)
    listener = Listener(connect, watches)
    long_poll = LongPoll(threads, listener, turns=max(1, settings.WEB_THREADS // 2))
    streams = EventStreams(
        threads,
        listener,
        turns=max(1, settings.WEB_THREADS // 4),
        fan_out=FanOut(partial(threads.run, "streams")),
    )
    passwords = PermitLane(threads, permit_turns(settings.ARGON2_CONCURRENCY))
    # A sign-in holds a thread while it asks the issuer, so few do at once.
    at_issuer = max(1, min(2, settings.WEB_THREADS // 4))
    sign_ins = PermitLane(threads, permit_turns(at_issuer), ticket=ISSUER)
    asking = AskingLane(threads, listener, turns=max(1, settings.WEB_THREADS // 4))
    heart = Heart(connect_as_requests, listener.reconnect)
    news = RunNews(listener, partial(threads.run, "streams"))
    ordinary = HookLane(threads, turns=max(1, settings.WEB_THREADS // 2))
    background = (listener.run, heart.run, news.run)
    app: App = Lanes(ordinary, long_poll, streams, passwords, sign_ins, asking, background)
    if settings.METRICS_TOKEN:
        from pipedai.metrics import web  # Metrics are imported only if they are on.

        app = web.measured(
            app, threads=threads, listener=listener, budget=budget, token=settings.METRICS_TOKEN
        )
    if tracing.is_on():
        from pipedai.tracing.provider import TracedRequests

        tracing.start("pipedai-web")
        app = TracedRequests(app)
    return Outer(
        app,
        limits=Limits(
            body_bytes=settings.MAX_BODY_BYTES,
            large_paths=re.compile(r"/api/v1/environments/[^/]+/(?:plan|apply)"),
            large_body_bytes=settings.MAX_FILES_BYTES,
        ),
        trusted_proxies=parse_networks(settings.TRUSTED_PROXIES),
        production=settings.PRODUCTION,
        budget=budget,
    )


application = _application()
