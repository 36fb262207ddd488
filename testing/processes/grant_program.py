"""A real authorization server and the MCP server behind it (PyPI `mcp`); `grant_server.py` starts it.

    PYTHONPATH=agent python -m testing.processes.grant_program FD LOG OPTIONS

FD is a socket that listens. The MCP server is at `/mcp` (streamable HTTP), with the tools of the real-CLI
tests, and wants an access token for just that URL. The authorization server is at the root: codes with PKCE, dynamic
registration, refresh tokens that rotate, revocation, and client credentials. Whoever comes to `/authorize` agrees.
LOG gets a line of JSON for each request. OPTIONS is a JSON object, and `POST /control` changes it while it runs.
"""

import asyncio
import contextlib
import json
import secrets
import socket
import sys
import time
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import uvicorn
from mcp.server.auth.middleware.auth_context import AuthContextMiddleware
from mcp.server.auth.middleware.bearer_auth import BearerAuthBackend, RequireAuthMiddleware
from mcp.server.auth.middleware.client_auth import AuthenticationError, ClientAuthenticator
from mcp.server.auth.provider import (
    AccessToken,
    AuthorizationCode,
    AuthorizationParams,
    ProviderTokenVerifier,
    RefreshToken,
    TokenError,
    construct_redirect_uri,
)
from mcp.server.auth.routes import create_auth_routes, create_protected_resource_routes
from mcp.server.auth.settings import ClientRegistrationOptions, RevocationOptions
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken
from pydantic import AnyHttpUrl
from starlette.applications import Starlette
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from tests.real.mcp_program import make_server

# What `/control` can change. `life` is how long access tokens live, in seconds. With `rotates` each refresh token works
# once. `issuer` says that answers name the issuer, `documents` that clients may be URLs of documents, `registers` that
# clients can be registered. `token_status` answers all requests for tokens if it is not 0. While `holds`, answers of
# the token endpoint wait, after the server has done what was asked.
OPTIONS: dict[str, Any] = {
    "life": 3600,
    "rotates": True,
    "issuer": True,
    "documents": False,
    "registers": True,
    "token_status": 0,
    "holds": False,
}
# A client that is known without registration. It may use codes with any redirect URI, and client credentials.
KNOWN = {"client_id": "a-known-client", "client_secret": "a-planted-client-secret"}


class _Known(OAuthClientInformationFull):
    def validate_redirect_uri(self, redirect_uri: Any) -> Any:
        return redirect_uri


class Provider:
    """Keeps clients, codes and tokens in memory."""

    def __init__(self, origin: str, options: dict[str, Any]) -> None:
        self._origin, self._options = origin, options
        grants = ["authorization_code", "refresh_token", "client_credentials"]
        known = _Known(
            **KNOWN,
            grant_types=grants,
            scope="mcp:tools",
            token_endpoint_auth_method="client_secret_basic",  # noqa: S106 - it is no secret
        )
        self.clients: dict[str, OAuthClientInformationFull] = {known.client_id: known}
        self.codes: dict[str, AuthorizationCode] = {}
        self.access: dict[str, AccessToken] = {}
        self.refresh: dict[str, RefreshToken] = {}

    async def get_client(self, client_id: str) -> OAuthClientInformationFull | None:
        if self._options["documents"] and client_id.startswith("http"):
            found = await asyncio.to_thread(_fetched, client_id)
            if found["client_id"] != client_id:
                return None
            self.clients[client_id] = OAuthClientInformationFull(**found)
        return self.clients.get(client_id)

    async def register_client(self, client_info: OAuthClientInformationFull) -> None:
        self.clients[client_info.client_id] = client_info

    async def authorize(
        self, client: OAuthClientInformationFull, params: AuthorizationParams
    ) -> str:
        code = AuthorizationCode(
            code=secrets.token_urlsafe(24),
            scopes=params.scopes or [],
            expires_at=time.time() + 60,
            client_id=client.client_id,
            code_challenge=params.code_challenge,
            redirect_uri=params.redirect_uri,
            redirect_uri_provided_explicitly=params.redirect_uri_provided_explicitly,
            resource=params.resource,
        )
        self.codes[code.code] = code
        issuer = self._origin if self._options["issuer"] else None
        found = {"code": code.code, "state": params.state, "iss": issuer}
        return str(construct_redirect_uri(str(params.redirect_uri), **found))

    async def load_authorization_code(
        self, client: OAuthClientInformationFull, authorization_code: str
    ) -> AuthorizationCode | None:
        return self.codes.get(authorization_code)

    async def exchange_authorization_code(
        self, client: OAuthClientInformationFull, authorization_code: AuthorizationCode
    ) -> OAuthToken:
        self.codes.pop(authorization_code.code, None)
        return self.issue(client.client_id, authorization_code.scopes, authorization_code.resource)

    async def load_refresh_token(
        self, client: OAuthClientInformationFull, refresh_token: str
    ) -> RefreshToken | None:
        return self.refresh.get(refresh_token)

    async def exchange_refresh_token(
        self, client: OAuthClientInformationFull, refresh_token: RefreshToken, scopes: list[str]
    ) -> OAuthToken:
        if not self._options["rotates"]:
            tokens = self.issue(client.client_id, scopes, refresh_token.resource, refreshed=False)
            return tokens.model_copy(update={"refresh_token": refresh_token.token})
        self.refresh.pop(refresh_token.token, None)
        return self.issue(client.client_id, scopes, refresh_token.resource)

    async def load_access_token(self, token: str) -> AccessToken | None:
        return self.access.get(token)

    async def revoke_token(self, token: AccessToken | RefreshToken) -> None:
        for kept in (self.access, self.refresh):
            for held in [each for each in kept.values() if each.client_id == token.client_id]:
                del kept[held.token]

    async def exchange_identity_assertion(self, client: Any, params: Any) -> OAuthToken:
        raise TokenError("unsupported_grant_type")

    def issue(
        self, client_id: str, scopes: list[str], resource: str | None, *, refreshed: bool = True
    ) -> OAuthToken:
        """Makes an access token for the resource, and with `refreshed` a refresh token beside it."""
        if resource is None or not resource.startswith(self._origin):
            raise TokenError("invalid_target")
        life = self._options["life"]
        told = {"client_id": client_id, "scopes": scopes, "resource": resource}
        access = AccessToken(
            token=f"access-{secrets.token_urlsafe(24)}", expires_at=int(time.time() + life), **told
        )
        self.access[access.token] = access
        tokens = OAuthToken(access_token=access.token, expires_in=life, scope=" ".join(scopes))
        if refreshed:
            refresh = RefreshToken(token=f"refresh-{secrets.token_urlsafe(24)}", **told)
            self.refresh[refresh.token] = refresh
            tokens.refresh_token = refresh.token
        return tokens


class Front:
    """Logs every request, obeys `/control`, and hands what is left to the library's own handlers."""

    def __init__(self, origin: str, log: Path, options: dict[str, Any]) -> None:
        self._log = log.open("a", buffering=1)
        self._origin, self._options = origin, options
        self._provider = Provider(origin, options)
        self._clients = ClientAuthenticator(self._provider)
        self._released = asyncio.Event()
        server = make_server()
        self._sessions = server
        issuer = AnyHttpUrl(origin)
        routes: list[Any] = create_auth_routes(
            self._provider,
            issuer,
            client_registration_options=ClientRegistrationOptions(enabled=True),
            revocation_options=RevocationOptions(enabled=True),
        )
        resource = AnyHttpUrl(f"{origin}/mcp")
        routes += create_protected_resource_routes(resource, [issuer], ["mcp:tools"])
        self._guarded = self._guard(server.streamable_http_app())
        self._app = Starlette(routes=routes)

    def _guard(self, app: ASGIApp) -> ASGIApp:
        metadata = AnyHttpUrl(f"{self._origin}/.well-known/oauth-protected-resource/mcp")
        verifier = ProviderTokenVerifier(self._provider)
        backend = BearerAuthBackend(verifier, resource_server_url=AnyHttpUrl(f"{self._origin}/mcp"))
        guarded = RequireAuthMiddleware(AuthContextMiddleware(app), [], metadata)
        return AuthenticationMiddleware(guarded, backend=backend)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Runs what the MCP server needs in the background."""
        async with self._sessions.session_manager.run():
            yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        body = await _read(receive) if scope["method"] in ("POST", "DELETE") else b""
        request = Request(scope, _again(body, receive))
        path = scope["path"]
        if path == "/control":
            await self._control(json.loads(body))(scope, receive, send)
            return
        seen: dict[str, Any] = {"at": time.time(), "method": scope["method"], "path": path}
        seen["authorization"] = request.headers.get("authorization")
        seen["query"] = dict(parse_qsl(scope["query_string"].decode()))
        if path in ("/token", "/revoke"):
            seen["form"] = dict(parse_qsl(body.decode()))
        elif body:
            seen["body"] = _parsed(body)

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._log.write(json.dumps(seen | {"status": message["status"]}) + "\n")
                if path == "/token" and self._options["holds"]:
                    await self._released.wait()
            await send(message)

        answer = await self._own_answer(path, seen, request)
        app: ASGIApp = answer or (self._guarded if path == "/mcp" else self._app)
        await app(scope, _again(body, receive), noting)

    def _control(self, wanted: dict[str, Any]) -> Response:
        """Changes options. `revoke` ends all tokens, or only those of one kind: `access` or `refresh`."""
        revoked = wanted.pop("revoke", None)
        for kind, kept in (("access", self._provider.access), ("refresh", self._provider.refresh)):
            if revoked in (kind, "all"):
                kept.clear()
        self._options.update(wanted)
        if self._options["holds"]:
            self._released.clear()
        else:
            self._released.set()
        return JSONResponse(self._options)

    async def _own_answer(
        self, path: str, seen: dict[str, Any], request: Request
    ) -> Response | None:
        """Returns what the library has no answer for, or what the options demand."""
        if path == "/.well-known/oauth-authorization-server":
            return JSONResponse(self._metadata())
        if path == "/token":
            if status := self._options["token_status"]:
                return JSONResponse({"error": "server_error"}, status)
            if seen["form"].get("grant_type") == "client_credentials":
                return await self._client_credentials(seen["form"], request)
        return None

    def _metadata(self) -> dict[str, Any]:
        told = {
            "issuer": self._origin,
            **{
                f"{name}_endpoint": f"{self._origin}/{path}"
                for name, path in (
                    ("authorization", "authorize"),
                    ("token", "token"),
                    ("revocation", "revoke"),
                )
            },
            "response_types_supported": ["code"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": [
                "client_secret_post",
                "client_secret_basic",
                "none",
            ],
            "authorization_response_iss_parameter_supported": self._options["issuer"],
            "client_id_metadata_document_supported": self._options["documents"],
        }
        if self._options["registers"]:
            told["registration_endpoint"] = f"{self._origin}/register"
        return told

    async def _client_credentials(self, form: dict[str, str], request: Request) -> Response:
        try:
            client = await self._clients.authenticate_request(request)
            scopes = form.get("scope", "").split()
            tokens = self._provider.issue(
                client.client_id, scopes, form.get("resource"), refreshed=False
            )
        except AuthenticationError:
            return JSONResponse({"error": "invalid_client"}, 401)
        except TokenError as refused:
            return JSONResponse({"error": refused.error}, 400)
        return JSONResponse(tokens.model_dump(exclude_none=True))


def _fetched(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - the test's own service
        return json.load(answer)


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode(errors="replace")


async def _read(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


def _again(body: bytes, receive: Receive) -> Receive:
    """Returns a `receive` that begins with the body that was read already."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return waiting.pop() if waiting else await receive()

    return receive_again


async def serve(listener: socket.socket, log: Path, options: dict[str, Any]) -> None:
    """Serves until SIGTERM."""
    origin = f"http://127.0.0.1:{listener.getsockname()[1]}"
    front = Front(origin, log, OPTIONS | options)
    config = uvicorn.Config(front, lifespan="off", log_level="warning", timeout_graceful_shutdown=1)
    async with front.running():
        await uvicorn.Server(config).serve(sockets=[listener])


if __name__ == "__main__":
    asyncio.run(
        serve(socket.socket(fileno=int(sys.argv[1])), Path(sys.argv[2]), json.loads(sys.argv[3]))
    )
