"""Each route accepts the right kinds of credentials, and each refusal names what was sent."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db.models.functions import Now

from pipedai.api import tokens
from pipedai.api.authentication import BAD_TOKEN
from testing.probes.shapes import NOT_FOUND
from testing.probes.statement_count import counted
from testing.world.cases import cases
from testing.world.cast import JSONClient, bearer, browser, session_cookie
from workers.models import Worker
from workspaces.models import ApiKey, Environment

ME = "/api/v1/auth/me"
CHALLENGE = 'Bearer realm="pipedai"'


def refused(response, sentence, code=None):
    if code is None and sentence == BAD_TOKEN:
        code = "invalid_token"
    if code is None:
        refuses_kind = sentence.endswith("is not accepted on this endpoint.")
        code = "credentials_not_accepted" if refuses_kind else "unauthenticated"
    assert response.status_code == 401
    assert response.json() == {"error": sentence, "code": code}
    assert response["WWW-Authenticate"] == CHALLENGE
    return True


@pytest.fixture
def triggers_url(cast):
    return f"/api/v1/environments/{cast.environment.id}/triggers"


class TestABearerHeaderDecidesAlone:
    @cases(
        "header",
        [
            "",
            "Bearer",
            "Bearer ",
            "Basic dXNlcjpwYXNz",
            "Token abc",
            "pwk_abc",
            "Bearer one, Bearer two",
        ],
    )
    def test_a_header_of_another_form_is_refused_though_the_cookie_is_good(self, cast, header):
        client = cast.client(cast.owner)
        client.credentials(HTTP_AUTHORIZATION=header)
        assert refused(client.get(ME), "The Authorization header must be: Bearer <token>.")

    @cases("kind", ["garbage", "pwk", "wkt", "wrk"])
    def test_a_bad_token_is_refused_though_the_cookie_is_good(self, cast, triggers_url, kind):
        token = tokens.mint(kind).value if kind in tokens.KINDS else kind
        client = cast.client(cast.owner)
        client.credentials(HTTP_AUTHORIZATION=f"Bearer {token}")
        assert client.get(triggers_url).status_code == 401

    @cases("cookie", ["garbage", "a; auth_token=b"])
    def test_a_good_token_counts_though_the_cookies_are_bad(self, cast, triggers_url, cookie):
        client = cast.key_client()
        client.credentials(
            HTTP_AUTHORIZATION=f"Bearer {cast.mint('pwk')}", HTTP_COOKIE=f"auth_token={cookie}"
        )
        assert client.get(triggers_url).status_code == 200

    @cases("scheme", ["Bearer", "bearer", "BEARER"])
    def test_the_scheme_is_known_in_any_case(self, cast, triggers_url, scheme):
        client = JSONClient()
        client.credentials(HTTP_AUTHORIZATION=f"{scheme}  {cast.mint('pwk')}")
        assert client.get(triggers_url).status_code == 200


class TestTwoCookies:
    @cases("url", ["auth/me", "workspaces"])
    def test_two_are_refused_even_if_both_are_good(self, cast, url):
        cookie = session_cookie(cast.owner)
        client = JSONClient()
        client.credentials(HTTP_COOKIE=f"auth_token={cookie}; other=1; auth_token={cookie}")
        assert refused(client.get(f"/api/v1/{url}"), "Two auth_token cookies were sent.")

    @cases("action", ["register", "login", "logout"])
    def test_two_are_refused_also_where_a_session_begins_or_ends(self, cast, action):
        client = JSONClient()
        client.credentials(HTTP_COOKIE="auth_token=a; auth_token=b")
        response = client.post(f"/api/v1/auth/{action}", {})
        assert refused(response, "Two auth_token cookies were sent.")

    def test_other_cookies_do_not_matter(self, cast):
        client = JSONClient()
        client.credentials(
            HTTP_COOKIE=f"x=auth_token; my_auth_token=1; auth_token={session_cookie(cast.owner)}"
        )
        assert client.get(ME).status_code == 200


PWK, WRK, WKT = (
    "An API key (pwk_) is not accepted on this endpoint.",
    "A registration token (wrk_) is not accepted on this endpoint.",
    "A worker token (wkt_) is not accepted on this endpoint.",
)
COOKIE = "The session cookie is not accepted on this endpoint."

# The credentials, the route that does not accept them, and the sentence of the refusal.
NOT_ACCEPTED = [
    ("POST", "auth/register", "pwk", PWK),
    ("POST", "auth/login", "pwk", PWK),
    ("POST", "auth/login", "wkt", WKT),
    ("POST", "auth/logout", "pwk", PWK),
    ("POST", "auth/logout", "garbage", BAD_TOKEN),
    ("GET", "auth/me", "pwk", PWK),
    ("GET", "auth/me", "wrk", WRK),
    ("GET", "auth/me", "wkt", WKT),
    ("GET", "auth/me", "garbage", BAD_TOKEN),
    ("GET", "workspaces", "pwk", PWK),
    ("POST", "workspaces", "pwk", PWK),
    ("GET", "workspaces/{workspace}/environments", "pwk", PWK),
    ("GET", "environments/{environment}/api-keys", "pwk", PWK),
    ("POST", "environments/{environment}/api-keys", "pwk", PWK),
    ("GET", "environments/{environment}/api-keys", "wkt", WKT),
    ("GET", "environments/{environment}/triggers", "wkt", WKT),
    ("GET", "environments/{environment}/triggers", "wrk", WRK),
    ("GET", "environments/{environment}/workers", "wkt", WKT),
    ("GET", "triggers/{trigger}", "wkt", WKT),
    ("POST", "triggers/{trigger}/run", "wkt", WKT),
    ("POST", "triggers/{trigger}/run", "wrk", WRK),
    ("GET", "workers/{worker}/poll", "cookie", COOKIE),
    ("GET", "workers/{worker}/poll", "pwk", PWK),
    ("GET", "workers/{worker}/poll", "wrk", WRK),
    ("GET", "workers/{worker}/poll", "garbage", BAD_TOKEN),
    ("POST", "workers/{worker}/runs/{run}/claim", "cookie", COOKIE),
    ("POST", "workers/register", "pwk", PWK),
    ("POST", "workers/register", "wkt", WKT),
]


@cases(("method", "path", "kind", "sentence"), NOT_ACCEPTED)
def test_what_is_not_accepted_is_401_and_says_so(cast, method, path, kind, sentence):
    client = {
        "cookie": lambda: cast.client(cast.owner),
        "pwk": cast.key_client,
        "wkt": cast.worker_client,
        "wrk": lambda: bearer(cast.mint("wrk")),
        "garbage": lambda: bearer("garbage"),
    }[kind]()
    url = path.format(
        workspace=cast.workspace.id,
        environment=cast.environment.id,
        trigger=cast.trigger_id,
        worker=cast.worker.worker_id,
        run=cast.trigger_id,
    )
    assert refused(client.generic(method, f"/api/v1/{url}"), sentence)


class TestATokenThatIsDead:
    def test_a_mistyped_one_is_refused_without_a_query(self, cast, triggers_url):
        token = cast.mint("pwk")
        mistyped = token[:-1] + ("1" if token[-1] == "0" else "0")
        with counted() as statements:
            assert refused(bearer(mistyped).get(triggers_url), BAD_TOKEN)
        assert not statements.sql

    @cases("token", ["A" * 43, "é" * 20, "x" * 10_000])
    def test_garbage_is_refused_without_a_query(self, cast, triggers_url, token):
        with counted() as statements:
            assert refused(bearer(f"pwk_{token}").get(triggers_url), BAD_TOKEN)
        assert not statements.sql

    @cases("kind", ["pwk", "wkt"])
    def test_one_that_nobody_minted_is_refused(self, cast, triggers_url, kind):
        url = {"pwk": triggers_url, "wkt": f"/api/v1/workers/{cast.worker.worker_id}/poll"}[kind]
        assert refused(bearer(tokens.mint(kind).value).get(url), BAD_TOKEN)

    @pytest.mark.parametrize(
        ("column", "code"), [("revoked_at", "invalid_token"), ("expires_at", "token_expired")]
    )
    def test_a_revoked_or_expired_key_is_refused(self, cast, triggers_url, column, code):
        client = cast.key_client()
        assert client.get(triggers_url).status_code == 200
        ApiKey.objects.update(**{column: Now()})
        assert refused(client.get(triggers_url), BAD_TOKEN, code)

    def test_a_key_counts_until_it_expires(self, cast, triggers_url):
        token = cast.mint("pwk", expires_at=datetime.now(UTC) + timedelta(hours=1))
        assert bearer(token).get(triggers_url).status_code == 200

    @pytest.mark.parametrize("change", [{"token_digest": None}, {"deleted_at": Now()}])
    def test_the_token_of_a_worker_that_was_revoked_or_deregistered_is_refused(self, cast, change):
        client, url = cast.worker_client(), f"/api/v1/workers/{cast.worker.worker_id}/poll"
        assert client.get(url).status_code == 200
        Worker.objects.update(**{"token_digest": None, **change})
        assert refused(client.get(url), BAD_TOKEN)

    def test_all_tokens_of_a_deleted_environment_are_dead(self, cast, triggers_url):
        owner, key, worker = cast.client(cast.owner), cast.key_client(), cast.worker_client()
        Environment.objects.update(deleted_at=Now())
        assert refused(key.get(triggers_url), BAD_TOKEN)
        assert refused(worker.get(f"/api/v1/workers/{cast.worker.worker_id}/poll"), BAD_TOKEN)
        response = owner.get(triggers_url)
        assert (response.status_code, response.json()) == (404, NOT_FOUND)

    def test_a_registration_token_opens_nothing_else(self, cast, triggers_url):
        assert bearer(cast.mint("wrk")).get(triggers_url).status_code == 401


class TestTheUseOfAKey:
    def used(self):
        return ApiKey.objects.get(kind="pwk").last_used_at

    def test_it_is_noted_at_most_every_ten_seconds(self, cast, triggers_url):
        client = cast.key_client()
        assert self.used() is None
        client.get(triggers_url)
        noted = self.used()
        assert noted is not None
        client.get(triggers_url)
        assert self.used() == noted
        ApiKey.objects.update(last_used_at=noted - timedelta(seconds=11))
        client.get(triggers_url)
        assert self.used() > noted

    def test_a_refused_one_is_not_noted(self, cast, triggers_url):
        client = cast.key_client()
        ApiKey.objects.update(revoked_at=Now())
        client.get(triggers_url)
        assert self.used() is None


def test_without_credentials_it_is_401(cast, triggers_url):
    assert refused(browser().get(triggers_url), "Authentication is required.")
