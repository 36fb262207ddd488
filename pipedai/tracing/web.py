"""Traces requests, with one span for each. A span is named after the route and never after the URL."""

import asyncio

from opentelemetry.context import Context
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from pipedai.api.request_id import current_request_id
from pipedai.server.access_log import LOG
from pipedai.server.asgi_types import App, Message, Receive, Scope, Send
from pipedai.server.request_scope import KNOWN_METHODS, header
from pipedai.tracing.provider import fail, flush, open_span

# The name of all unknown HTTP methods in traces, which OpenTelemetry's conventions prescribe.
_OTHER = "_OTHER"


class TracedRequests:
    """Wraps an application and traces its requests.

    A client's `traceparent` header names the parent of the request's span.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._propagator = TraceContextTextMapPropagator()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._trace(scope, receive, send)
            return
        await self._app(scope, receive, send)
        await asyncio.to_thread(flush)

    async def _trace(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope["method"] if scope["method"] in KNOWN_METHODS else _OTHER
        attributes = {
            "http.request.method": method,
            "pipedai.request.id": current_request_id.get(),
        }
        parent = self._parent(scope)
        with open_span(method, attributes, kind=SpanKind.SERVER, parent=parent) as span:
            said = scope[LOG]
            said["trace_id"] = f"{span.get_span_context().trace_id:032x}"

            async def tell(message: Message) -> None:
                if message["type"] == "http.response.start":
                    status = message["status"]
                    span.set_attribute("http.response.status_code", status)
                    if status >= 500:
                        fail(span, str(status))
                    if route := said.get("route"):
                        span.update_name(f"{method} {route}")
                        span.set_attribute("http.route", route)
                await send(message)

            await self._app(scope, receive, tell)

    def _parent(self, scope: Scope) -> Context:
        names = ("traceparent", "tracestate")
        sent = {name: header(scope["headers"], name.encode()) for name in names}
        return self._propagator.extract({name: value for name, value in sent.items() if value})
