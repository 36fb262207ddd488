"""A request is taken for signed if one of its source's secrets signed it, and whatever is sent is only refused."""

import base64
import hmac

from hypothesis import example, given
from hypothesis import strategies as st

from testing.world.cases import cases
from triggers.events.signatures import TOLERANCE_SECONDS, is_signed
from triggers.states import Scheme

# Each scheme with a request whose secret and signature its provider has published. Stripe and GitLab publish none, so
# theirs are made as their documentation says.
# https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
GITHUB = (
    "It's a Secret to Everybody",
    b"Hello, World!",
    {
        "x-hub-signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    },
    0,
)
# https://docs.slack.dev/authentication/verifying-requests-from-slack
SLACK = (
    "8f742231b10e8888abcd99yyyzzz85a5",
    (
        b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V"
        b"&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text="
        b"&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN"
        b"&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
    ),
    {
        "x-slack-request-timestamp": "1531420618",
        "x-slack-signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
    },
    1531420618,
)
# test_sign_function of libraries/python/tests/test_webhooks.py in github.com/standard-webhooks/standard-webhooks.
# GitLab's signing tokens (gitlab.com/gitlab-org/gitlab, merge request 230944) sign in the same way.
STANDARD = (
    "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    b'{"test": 2432232314}',
    {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    },
    1614265330,
)
_NOW = 1_700_000_000
_SECRET = "whsec_a-secret-of-stripe"
_EVENT = b'{"id": "evt_1"}'
_HEX = hmac.digest(_SECRET.encode(), f"{_NOW}.".encode() + _EVENT, "sha256").hex()
# https://docs.stripe.com/webhooks#verify-manually, and tests/test_webhook.py in github.com/stripe/stripe-python
STRIPE = (
    _SECRET,
    _EVENT,
    {"stripe-signature": f"t={_NOW},v1={'0' * 64},v1={_HEX},v0={'0' * 64}"},
    _NOW,
)
# https://docs.gitlab.com/user/project/integrations/webhooks/#validate-requests-by-using-a-secret-token
GITLAB = (_SECRET, _EVENT, {"x-gitlab-token": _SECRET}, 0)
BEARER = (_SECRET, _EVENT, {"authorization": f"bearer {_SECRET}"}, 0)
HMAC = (_SECRET, _EVENT, {"x-signature": f"sig {_HEX.upper()}", "x-time": str(_NOW)}, _NOW)
KNOWN = {
    Scheme.GITHUB: GITHUB,
    Scheme.SLACK: SLACK,
    Scheme.STANDARD: STANDARD,
    Scheme.STRIPE: STRIPE,
    Scheme.GITLAB: GITLAB,
    Scheme.BEARER: BEARER,
    Scheme.HMAC: HMAC,
}
OPTIONS = {"header": "X-Signature", "prefix": "sig ", "timestampHeader": "X-Time"}


class Headers(dict[str, str]):
    """Headers whose names differ in case alone are the same."""

    def get(self, name, default=None):
        return super().get(name.lower(), default)


def is_signed_as(scheme, secrets, headers, body, now) -> bool:
    return is_signed(
        scheme,
        options=OPTIONS if scheme == Scheme.HMAC else None,
        secrets=secrets,
        headers=Headers(headers),
        body=body,
        now=now,
    )


@cases("scheme", KNOWN)
def test_what_either_secret_signed_is_taken_and_nothing_else(scheme):
    secret, body, headers, now = KNOWN[scheme]
    for secrets in ([secret], [secret, "another-secret"], ["another-secret", secret]):
        assert is_signed_as(scheme, secrets, headers, body, now), secrets
    assert not is_signed_as(scheme, ["another-secret"], headers, body, now)
    if scheme not in (Scheme.GITLAB, Scheme.BEARER):
        assert not is_signed_as(scheme, [secret], headers, body + b" ", now)
    for name in headers:
        without = {each: value for each, value in headers.items() if each != name}
        assert not is_signed_as(scheme, [secret], without, body, now), name
        cut = {**headers, name: headers[name][: len(headers[name]) // 2]}
        assert not is_signed_as(scheme, [secret], cut, body, now), name


@cases("scheme", [Scheme.STANDARD, Scheme.STRIPE, Scheme.SLACK, Scheme.HMAC])
def test_a_signature_holds_for_five_minutes_before_and_after_its_time(scheme):
    secret, body, headers, now = KNOWN[scheme]
    for sign in (-1, 1):
        assert is_signed_as(scheme, [secret], headers, body, now + sign * TOLERANCE_SECONDS)
        late = now + sign * (TOLERANCE_SECONDS + 1)
        assert not is_signed_as(scheme, [secret], headers, body, late)


def test_one_good_signature_of_several_is_enough():
    """Whoever replaces a secret signs with both (Standard Webhooks)."""
    secret, body, headers, now = STANDARD
    wrong = base64.b64encode(b"0" * 32).decode()
    both = {**headers, "webhook-signature": f"v1a,x v1,{wrong} {headers['webhook-signature']}"}
    assert is_signed_as(Scheme.STANDARD, [secret], both, body, now)


_TEXT = st.text(st.characters(max_codepoint=255), max_size=60)
_PIECES = st.lists(
    st.sampled_from(
        ["t=", "v1=", "v1,", "sha256=", "v0=", "sig ", "Bearer ", ",", " ", "1" * 13, "-1"]
    )
    | _TEXT
).map("".join)
_NAMES = sorted({name for _, _, headers, _ in KNOWN.values() for name in headers})


@given(
    scheme=st.sampled_from(Scheme.values),
    headers=st.dictionaries(st.sampled_from(_NAMES), _PIECES),
    body=st.binary(max_size=40),
)
@example(Scheme.STRIPE, {"stripe-signature": "t=" + "9" * 5000 + ",v1="}, b"")
@example(
    Scheme.STANDARD,
    {"webhook-id": "é", "webhook-timestamp": "١٢٣", "webhook-signature": "v1,é"},
    b"",
)
def test_whatever_is_sent_is_refused_and_nothing_breaks(scheme, headers, body):
    assert not is_signed_as(scheme, ["a-secret-that-signed-nothing"], headers, body, _NOW)
