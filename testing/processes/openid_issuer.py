"""An OpenID provider of the tests that signs whatever a test wants, and answers as no honest one would.

It runs in a thread. `testing/processes/openid_provider.py` starts a real one.
"""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

CLIENT_ID, CLIENT_SECRET = "a-client", "a-planted-client-secret-of-ours"
# How an answer may be instead of a body: it never comes, it comes a byte at a time, or it never ends.
SILENT, DRIPPING, ENDLESS = "silent", "dripping", "endless"


@lru_cache
def signing_key(_name: str) -> ec.EllipticCurvePrivateKey:
    """Returns the key of this name, always the same in a process."""
    return ec.generate_private_key(ec.SECP256R1())


def jwk_of(name: str) -> dict[str, Any]:
    jwk: dict[str, Any] = json.loads(ECAlgorithm.to_jwk(signing_key(name).public_key()))
    return {**jwk, "kid": name, "use": "sig", "alg": "ES256"}


@dataclass
class OpenIdIssuer:
    origin: str
    # What each path answers: a status and a body, which is text, JSON, one of the words above, or a function that makes
    # one of the form that came.
    pages: dict[str, tuple[int, Any]] = field(default_factory=dict)
    # The paths that were asked for, and the forms that came to the token endpoint.
    asked: list[str] = field(default_factory=list)
    forms: list[dict[str, str]] = field(default_factory=list)
    # How many requests for tokens are being answered, and how many were at most.
    at_once: int = 0
    most_at_once: int = 0
    # It is set at the end, so that no thread of an endless answer lives on.
    over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self.set_metadata()
        self.pages["/keys"] = (200, {"keys": [jwk_of("one")]})

    def set_metadata(self, **more: Any) -> None:
        metadata = {
            "issuer": self.origin,
            "authorization_endpoint": f"{self.origin}/authorize",
            "token_endpoint": f"{self.origin}/token",
            "jwks_uri": f"{self.origin}/keys",
            "id_token_signing_alg_values_supported": ["ES256", "HS256", "none"],
        }
        self.pages["/.well-known/openid-configuration"] = (200, {**metadata, **more})

    def claims(self, url: str, **more: Any) -> dict[str, Any]:
        """Returns honest claims for the sign-in that began with this URL, but for `more`; None leaves a claim out."""
        now = int(time.time())
        claims = {
            "iss": self.origin,
            "aud": CLIENT_ID,
            "sub": "ada-at-work",
            "exp": now + 300,
            "iat": now,
            "nonce": parse_qs(urlsplit(url).query)["nonce"][0],
            "email": "ada@example.com",
            "email_verified": True,
            "name": "Ada Lovelace",
        }
        return {name: value for name, value in {**claims, **more}.items() if value is not None}

    def answer_by_code(self, id_tokens: dict[str, str]) -> None:
        """Lets the token endpoint answer each code with its ID token."""
        tokens = {"access_token": "an-access-token", "token_type": "Bearer"}
        self.pages["/token"] = (
            200,
            lambda form: {**tokens, "id_token": id_tokens[form["code"]]},
        )

    @contextlib.contextmanager
    def counting(self, path: str) -> Iterator[None]:
        if path != "/token":
            yield
            return
        with self._lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            yield
        finally:
            with self._lock:
                self.at_once -= 1

    def answer(self, id_token: Any, status: int = 200) -> None:
        """Lets the token endpoint answer with this ID token."""
        tokens = {"access_token": "an-access-token", "token_type": "Bearer", "expires_in": 60}
        self.pages["/token"] = (status, {**tokens, "id_token": id_token})

    def sign(self, claims: dict[str, Any], *, key: str = "one", kid: str | None = None) -> str:
        return jwt.encode(claims, signing_key(key), "ES256", {"kid": kid or key})


class _Handler(BaseHTTPRequestHandler):
    issuer: ClassVar[OpenIdIssuer]

    def do_GET(self) -> None:
        issuer, path = self.issuer, urlsplit(self.path).path
        issuer.asked.append(path)
        form = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        sent = {name: values[0] for name, values in parse_qs(form).items()}
        if form:
            issuer.forms.append(sent)
        status, body = issuer.pages.get(path, (404, ""))
        with contextlib.suppress(OSError), issuer.counting(path):
            body = body(sent) if callable(body) else body
            if body == SILENT:
                # The client's end of the connection tells that it waits no longer.
                self.connection.settimeout(60)
                self.connection.recv(1)
                return
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", f"{issuer.origin}/keys")
            self.end_headers()
            while body in (DRIPPING, ENDLESS) and not issuer.over.is_set():
                self.wfile.write(b"x" * (4096 if body == ENDLESS else 1))
                time.sleep(0 if body == ENDLESS else 0.05)
            self.wfile.write((body if isinstance(body, str) else json.dumps(body)).encode())

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def openid_issuer() -> Iterator[OpenIdIssuer]:
    """Runs the issuer for the time of the block."""
    handler: Any = type("Handler", (_Handler,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        issuer = OpenIdIssuer(f"http://127.0.0.1:{server.server_address[1]}")
        handler.issuer = issuer
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield issuer
        finally:
            issuer.over.set()
            server.shutdown()
            thread.join()
