"""Every route that hashes a password takes the password lane, where requests wait without a thread."""

import pytest

from accounts import passwords
from pipedai.server.lanes import _PASSWORD_PATHS, may_hash
from pipedai.server.tests.asgi_exchange import http_scope
from testing.world.routes import ROUTES


@pytest.fixture
def hashed(monkeypatch):
    """Returns a list that gets one entry for each password that is hashed."""
    turn, hashed = passwords.PERMITS.turn, []

    def noting():
        hashed.append(True)
        return turn()

    monkeypatch.setattr(passwords.PERMITS, "turn", noting)
    return hashed


def test_no_other_route_of_the_api_hashes(stage, hashed):
    cast, client, hashing = stage.cast, None, set()
    for route in ROUTES:
        before, url = len(hashed), route.url(stage)
        client = client or cast.client(cast.owner)
        route.send(client, url, cast)
        # The next call has another session, because some routes end the session that they are called with.
        client = client if route.method == "GET" else None
        if len(hashed) > before:
            hashing.add(url)
            assert may_hash(http_scope(route.method, url)), f"{route.key} hashes outside its lane"
    # Without an issuer there is nothing to be linked; accounts/tests/test_single_sign_on.py looks at it.
    others = {path for path in _PASSWORD_PATHS if path.startswith("/api/")} - hashing
    assert others == {"/api/v1/auth/sso/link"}
