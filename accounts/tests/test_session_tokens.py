"""The JWT in the cookie has the right claims, only valid ones are accepted, and no table stores one."""

import base64
import json
from datetime import UTC, datetime, timedelta
from uuid import UUID

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accounts.sessions import _signing_key, new_session_token, read_session_token
from pipedai.api.errors import Unauthenticated
from pipedai.api.principal import UserPrincipal
from pipedai.ids import new_id
from testing.probes.tables import columns_with
from testing.world.cast import browser, session_cookie
from testing.world.users import UserFactory

USER, SESSION = new_id(), new_id()
CLAIMS = ("typ", "aud", "jti", "sid", "sub", "exp")


def sign(settings, claims, *, key=None, algorithm="HS256"):
    return jwt.encode(claims, key or _signing_key(settings.SECRET_KEY), algorithm=algorithm)


@pytest.fixture
def claims():
    return jwt.decode(new_session_token(USER, SESSION), options={"verify_signature": False})


def test_it_names_the_user_and_the_session():
    assert read_session_token(new_session_token(USER, SESSION)) == UserPrincipal(USER, SESSION)


def test_it_says_what_it_is_for_and_until_when(claims):
    assert set(claims) == {*CLAIMS, "iat"}
    assert (claims["typ"], claims["aud"]) == ("session", "pipedai-api")
    assert (UUID(claims["sub"]), UUID(claims["sid"])) == (USER, SESSION)
    assert claims["exp"] - claims["iat"] == 7 * 24 * 3600


def test_two_for_one_session_differ():
    assert new_session_token(USER, SESSION) != new_session_token(USER, SESSION)


def test_what_it_says_signed_with_our_key_counts(claims, settings):
    assert read_session_token(sign(settings, claims)) == UserPrincipal(USER, SESSION)


@pytest.mark.parametrize("name", CLAIMS)
def test_each_claim_is_required(claims, settings, name):
    del claims[name]
    with pytest.raises(Unauthenticated):
        read_session_token(sign(settings, claims))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("typ", "access"),
        ("aud", "another-api"),
        ("aud", None),
        ("exp", 1),
        ("exp", "soon"),
        ("sub", "ada"),
        ("sub", 5),
        ("sub", None),
        ("sid", "1"),
        ("sid", None),
        ("sid", [str(SESSION)]),
    ],
)
def test_a_wrong_claim_is_refused(claims, settings, name, value):
    with pytest.raises(Unauthenticated):
        read_session_token(sign(settings, {**claims, name: value}))


def test_it_ends_after_seven_days(claims, settings):
    past = datetime.now(UTC) - timedelta(seconds=1)
    with pytest.raises(Unauthenticated):
        read_session_token(sign(settings, {**claims, "exp": past}))


def test_a_machine_whose_clock_is_an_hour_fast_makes_sessions_that_others_accept(claims, settings):
    ahead = {name: claims[name] + 3600 for name in ("iat", "exp")}
    assert read_session_token(sign(settings, {**claims, **ahead})).session_id == SESSION


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
def test_no_other_algorithm_counts_even_with_our_key(claims, settings, algorithm):
    with pytest.raises(Unauthenticated):
        read_session_token(sign(settings, claims, algorithm=algorithm))


def test_an_unsigned_one_is_refused(claims):
    with pytest.raises(Unauthenticated):
        read_session_token(jwt.encode(claims, None, algorithm="none"))


def test_the_secret_key_itself_signs_nothing(claims, settings):
    with pytest.raises(Unauthenticated):
        read_session_token(sign(settings, claims, key=settings.SECRET_KEY))


def test_any_change_to_what_was_signed_is_refused(claims):
    header, _, signature = new_session_token(USER, SESSION).split(".")
    forged = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    with pytest.raises(Unauthenticated):
        read_session_token(f"{header}.{forged}.{signature}")


@given(st.text(max_size=200))
def test_garbage_is_refused(text):
    with pytest.raises(Unauthenticated):
        read_session_token(text)


def test_rotating_the_secret_key_logs_nobody_out(settings):
    old = new_session_token(USER, SESSION)
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "the next secret key, as long as any that an operator would choose"
    assert (
        read_session_token(old)
        == read_session_token(new_session_token(USER, SESSION))
        == UserPrincipal(USER, SESSION)
    )


def test_a_key_that_is_no_fallback_any_more_verifies_nothing(settings):
    old = new_session_token(USER, SESSION)
    settings.SECRET_KEY = "the next secret key, as long as any that an operator would choose"
    with pytest.raises(Unauthenticated):
        read_session_token(old)


@pytest.mark.django_db
def test_nothing_stores_it():
    cookie = session_cookie(UserFactory.create())
    assert browser(cookie).get("/api/v1/auth/me").status_code == 200
    jti = jwt.decode(cookie, options={"verify_signature": False})["jti"]
    assert columns_with(cookie, cookie.rpartition(".")[2], jti) == []
