"""People sign in at an OpenID provider, and its lies and failures change nothing."""

import base64
import hmac
import json
import threading
import time
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import jwt
import pyotp
import pytest
from cryptography.hazmat.primitives import serialization
from django.core import signing

from accounts import issuer, single_sign_on
from accounts.authenticators import begin_setup, confirm_setup
from accounts.models import AccountMail, Identity, Session, User
from audit.models import AuditEntry
from pipedai.events import SYSTEM
from pipedai.outgoing.oauth import Client, challenge_of
from testing.processes.openid_issuer import (
    CLIENT_ID,
    CLIENT_SECRET,
    DRIPPING,
    ENDLESS,
    SILENT,
    jwk_of,
    openid_issuer,
    signing_key,
)
from testing.world.cast import browser, session_cookie
from testing.world.mails import MAIL_SERVER, invite_for_test, mails_to, prove, token_to
from testing.world.users import PASSWORD, UserFactory

SSO = "/api/v1/auth/sso"
METADATA = "/.well-known/openid-configuration"


@pytest.fixture
def there(settings):
    with openid_issuer() as found:
        settings.OIDC_ISSUER = found.origin
        settings.OIDC_CLIENT_ID, settings.OIDC_CLIENT_SECRET = CLIENT_ID, CLIENT_SECRET
        settings.EMAIL_URL = MAIL_SERVER
        settings.PUBLIC_URL = "https://api.example.com"
        issuer.forget()
        yield found
    issuer.forget()


def begin(client, **body):
    answer = client.post(f"{SSO}/begin", body)
    assert answer.status_code == 200, answer.json()
    return answer.json()["url"]


def finish(client, url, **more):
    state = parse_qs(urlsplit(url).query)["state"][0]
    return client.post(f"{SSO}/finish", {"state": state, "code": "a-code", **more})


def sign_in(there, client=None, to="/console/", **claims):
    client = client or browser()
    url = begin(client, next=to)
    there.answer(there.sign(there.claims(url, **claims)))
    return finish(client, url)


def refusal(answer):
    return answer.status_code, answer.json()["code"]


def counts():
    """Returns how many rows there are of what a sign-in may write."""
    tables = (User, Identity, Session, AuditEntry, AccountMail)
    return [table.objects.count() for table in tables]


@pytest.mark.django_db
class TestTheFirstTime:
    def test_an_account_with_a_proved_address_is_made(self, there):
        client = browser()
        url = begin(client, next="/console/pair")
        asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        assert asked["redirect_uri"] == "https://api.example.com/console/sso/callback"
        assert (asked["scope"], asked["code_challenge_method"]) == ("openid email profile", "S256")
        there.answer(there.sign(there.claims(url)))
        answer = finish(client, url)
        assert answer.status_code == 200
        assert answer.json()["next"] == "/console/pair"
        user = answer.json()["user"]
        assert (user["email"], user["name"]) == ("ada@example.com", "Ada Lovelace")
        assert (user["emailVerified"], user["hasPassword"]) == (True, False)
        assert client.get("/api/v1/auth/me").json()["user"]["id"] == user["id"]
        (session,) = Session.objects.filter(user_id=user["id"])
        assert session.began == "sso"
        assert session.expires_at - session.created_at == timedelta(hours=12)
        assert answer.cookies["auth_token"]["max-age"] == 12 * 3600
        (row,) = AuditEntry.objects.filter(target_id=user["id"])
        assert (row.action, row.metadata) == ("user.registered", {"issuer": there.origin})
        (form,) = there.forms
        assert challenge_of(form["code_verifier"]) == asked["code_challenge"]

    def test_and_the_second_time_it_opens_for_the_same_person_alone(self, there):
        first = sign_in(there).json()["user"]["id"]
        assert sign_in(there).json()["user"]["id"] == first
        assert AuditEntry.objects.filter(target_id=first, action="user.logged-in").count() == 1
        before = counts()
        recycled = sign_in(there, sub="somebody-else")
        assert refusal(recycled) == (409, "sso_failed")
        assert "Another account" in recycled.json()["error"]
        assert counts() == before

    def test_the_session_that_came_along_ends(self, there, cast):
        client = browser(session_cookie(cast.viewer))
        old = browser(client.cookies["auth_token"].value)
        assert sign_in(there, client).status_code == 200
        assert old.get("/api/v1/auth/me").status_code == 401

    def test_an_account_that_never_proved_the_address_loses_it(self, there, cast):
        squatter = UserFactory.create(email="ada@example.com", must_prove_email=True)
        answer = sign_in(there)
        assert answer.status_code == 200
        assert answer.json()["user"]["id"] != str(squatter.id)
        squatter.refresh_from_db()
        assert (squatter.is_active, squatter.email.partition("@")[2]) == (
            False,
            "displaced.invalid",
        )

    def test_a_name_that_no_account_may_have_is_left_out(self, there):
        assert sign_in(there, name="a\nb").json()["user"]["name"] == ""

    def test_addresses_that_the_issuer_does_not_vouch_for_are_refused(self, there):
        before = counts()
        for claims in (
            {"email_verified": False},
            {"email_verified": None},
            {"email_verified": "true"},
            {"email_verified": None, "xms_edov": True},
            {"email": None},
            {"email": "not an address"},
        ):
            answer = sign_in(there, **claims)
            assert refusal(answer) == (409, "sso_failed"), claims
            assert "does not vouch" in answer.json()["error"], claims
        assert counts() == before

    def test_what_the_id_token_leaves_out_is_asked_for(self, there):
        there.set_metadata(userinfo_endpoint=f"{there.origin}/me")
        known = {"sub": "ada-at-work", "email": "ada@example.com", "email_verified": True}
        there.pages["/me"] = (200, known)
        thin = {"email": None, "email_verified": None}
        assert sign_in(there, **thin).status_code == 200
        proof = {"email_verified": None}
        assert sign_in(there, **proof).status_code == 200
        # The endpoint's proof of another address proves nothing of the token's.
        there.pages["/me"] = (200, {**known, "email": "eve@example.com"})
        answer = sign_in(there, email="new@example.com", **proof)
        assert answer.json()["user"]["email"] == "ada@example.com"
        there.pages["/me"] = (200, {**known, "name": "\ud800"})
        assert refusal(sign_in(there, **proof)) == (409, "sso_failed")
        there.pages["/me"] = (200, {**known, "sub": "another"})
        assert refusal(sign_in(there, **thin)) == (409, "sso_failed")
        there.pages["/me"] = (500, "")
        assert refusal(sign_in(there, **thin)) == (503, "issuer_unavailable")

    def test_registration_lets_in_who_has_an_account_or_an_invitation(self, there, cast, settings):
        settings.REGISTRATION = "closed"
        before = counts()
        assert refusal(sign_in(there)) == (403, "registration_closed")
        assert counts() == before
        token = invite_for_test(cast.environment, cast.owner, "ada@example.com")
        client = browser()
        assert sign_in(there, client).status_code == 200
        accepted = client.post("/api/v1/invitations/accept", {"token": token})
        assert accepted.status_code == 200
        settings.REGISTRATION = "invited"
        assert sign_in(there, sub="b", email="b@example.com").status_code == 200


def test_an_address_of_entra_counts_by_its_own_claim():
    client = Client("id", "secret", "client_secret_basic")

    def vouched(name, **said):
        found = issuer.Issuer(name, "a", "b", "c", None, frozenset(), client, False)
        return issuer._email(found, {"email": "ada@example.com", **said}) is not None

    entra = "https://login.microsoftonline.com/tenant/v2.0"
    assert vouched(entra, xms_edov=True)
    assert not vouched(entra, xms_edov="0")
    assert not vouched(entra, xms_edov=True, email_verified=False)
    assert not vouched("https://login.example.com", xms_edov=True)


@pytest.mark.django_db
class TestAChangedAddress:
    def test_follows_if_nobody_has_it(self, there):
        user = sign_in(there).json()["user"]["id"]
        answer = sign_in(there, email="lovelace@example.com")
        assert answer.json()["user"] | {"name": ""} == answer.json()["user"] | {
            "id": user,
            "email": "lovelace@example.com",
            "name": "",
        }
        actions = AuditEntry.objects.filter(target_id=user).order_by("id")
        assert list(actions.values_list("action", flat=True)) == [
            *("user.registered", "user.email-changed", "user.logged-in")
        ]

    def test_and_else_stays(self, there):
        UserFactory.create(email="taken@example.com")
        sign_in(there)
        for claims in ({"email": "taken@example.com"}, {"email_verified": False}):
            assert sign_in(there, **claims).json()["user"]["email"] == "ada@example.com"


@pytest.mark.django_db
class TestAnAccountThatHasTheAddress:
    @pytest.fixture
    def ada(self):
        user = UserFactory.create(email="ada@example.com", name="Ada")
        prove(user)
        return user

    @pytest.fixture
    def pending(self, there, ada):
        """A browser whose sign-in waits for the link."""
        client = browser()
        answer = sign_in(there, client)
        assert refusal(answer) == (409, "link_needed")
        assert answer.cookies["sso_link"]["httponly"]
        assert "auth_token" not in answer.cookies
        return client

    def test_is_linked_by_its_password(self, there, ada, pending):
        wrong = pending.post(f"{SSO}/link", {"password": "wrong password"})
        assert refusal(wrong) == (401, "wrong_credentials")
        assert not Identity.objects.exists()
        answer = pending.post(f"{SSO}/link", {"password": PASSWORD})
        assert answer.status_code == 200
        assert answer.json()["user"]["id"] == str(ada.id)
        assert pending.get("/api/v1/auth/me").status_code == 200
        assert mails_to("ada@example.com") == ["link_notice"]
        (row,) = AuditEntry.objects.filter(action="user.linked")
        assert (row.actor_id, row.metadata) == (ada.id, {"issuer": there.origin})
        assert sign_in(there).json()["user"]["id"] == str(ada.id)
        assert refusal(sign_in(there, sub="another")) == (409, "sso_failed")

    def test_or_by_a_mail_once(self, there, ada, pending):
        assert pending.post(f"{SSO}/link-mail").status_code == 202
        token = token_to("ada@example.com", "link")
        elsewhere = browser().post(f"{SSO}/link-by-mail", {"token": token})
        assert refusal(elsewhere) == (409, "sso_failed")
        assert "in the browser in which" in elsewhere.json()["error"]
        assert pending.post(f"{SSO}/link-by-mail", {"token": token}).status_code == 204
        assert sign_in(there).json()["user"]["id"] == str(ada.id)
        again = pending.post(f"{SSO}/link-by-mail", {"token": token})
        assert refusal(again) == (409, "link_unusable")

    def test_by_nobody_without_the_cookie(self, there, ada, settings):
        forged = {"issuer": there.origin, "sub": "x", "user": str(ada.id), "next": "/"}
        for cookie in (
            None,
            "nonsense",
            signing.dumps(forged, salt="another"),
            signing.dumps(forged, salt=single_sign_on.BEGUN),
        ):
            client = browser()
            if cookie:
                client.cookies["sso_link"] = cookie
            answer = client.post(f"{SSO}/link", {"password": PASSWORD})
            assert refusal(answer) == (409, "sso_failed")
            assert refusal(client.post(f"{SSO}/link-mail")) == (409, "sso_failed")
        settings.EMAIL_URL = ""
        settings.PRODUCTION = True
        assert refusal(browser().post(f"{SSO}/link-mail")) == (409, "mail_off")

    def test_of_staff_with_their_code(self, there, ada, pending):
        User.objects.filter(id=ada.id).update(is_staff=True)
        setup = begin_setup(ada)
        assert setup is not None
        codes = confirm_setup(ada, pyotp.TOTP(setup.secret).now(), actor=SYSTEM)
        assert codes is not None
        answer = pending.post(f"{SSO}/link", {"password": PASSWORD})
        assert refusal(answer) == (401, "wrong_credentials")
        pending.post(f"{SSO}/link-mail")
        token = token_to("ada@example.com", "link")
        by_mail = pending.post(f"{SSO}/link-by-mail", {"token": token})
        assert by_mail.json()["details"]["fieldErrors"].keys() == {"code"}
        with_code = pending.post(f"{SSO}/link-by-mail", {"token": token, "code": codes[0]})
        assert with_code.status_code == 204
        answer = pending.post(f"{SSO}/link", {"password": PASSWORD, "code": codes[1]})
        assert answer.status_code == 200

    def test_of_staff_without_guesses_of_the_code_from_many_addresses(self, there, ada, pending):
        User.objects.filter(id=ada.id).update(is_staff=True)
        setup = begin_setup(ada)
        assert setup is not None
        confirm_setup(ada, pyotp.TOTP(setup.secret).now(), actor=SYSTEM)
        pending.post(f"{SSO}/link-mail")
        body = {"token": token_to("ada@example.com", "link"), "code": "no code"}
        guesses = [
            pending.post(f"{SSO}/link-by-mail", body, REMOTE_ADDR=f"198.51.100.{n}")
            for n in range(12)
        ]
        assert [guess.status_code for guess in guesses] == [400] * 10 + [429] * 2
        assert guesses[-1]["RateLimit-Policy"] == '"link-account";q=10;w=60'

    def test_not_while_it_is_deactivated(self, there, ada):
        User.objects.filter(id=ada.id).update(is_active=False)
        before = counts()
        assert refusal(sign_in(there)) == (409, "sso_failed")
        User.objects.filter(id=ada.id).update(is_active=True)
        Identity.objects.create(user=ada, issuer=there.origin, sub="ada-at-work")
        User.objects.filter(id=ada.id).update(is_active=False)
        before = counts()
        assert refusal(sign_in(there)) == (409, "sso_failed")
        assert counts() == before

    def test_anew_to_another_issuer(self, there, ada, pending):
        Identity.objects.create(user=ada, issuer="https://former.example", sub="a")
        assert pending.post(f"{SSO}/link", {"password": PASSWORD}).status_code == 200
        (identity,) = Identity.objects.filter(user=ada)
        assert (identity.issuer, identity.sub) == (there.origin, "ada-at-work")

    def test_without_proof_of_addresses_by_its_password_alone(self, there, settings):
        settings.EMAIL_URL = ""
        user = UserFactory.create(email="ada@example.com", must_prove_email=True)
        client = browser()
        assert refusal(sign_in(there, client)) == (409, "link_needed")
        assert client.post(f"{SSO}/link", {"password": PASSWORD}).status_code == 200
        assert sign_in(there).json()["user"]["emailVerified"]
        assert Identity.objects.get().user_id == user.id


def _foreign(there, url):
    return there.sign(there.claims(url, iss="https://evil.example"))


def _unsigned(there, url):
    return jwt.encode(there.claims(url), None, "none", {"kid": "one"})


def _shared(there, url):
    """Signs with the issuer's public key, as if it were a secret that both know (HS256)."""
    public = signing_key("one").public_key()
    pem = public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )

    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")

    signed = part({"alg": "HS256", "kid": "one"}) + b"." + part(there.claims(url))
    digest = base64.urlsafe_b64encode(hmac.digest(pem, signed, "sha256")).rstrip(b"=")
    return (signed + b"." + digest).decode()


def _claiming(**claims):
    return lambda there, url: there.sign(there.claims(url, **claims))


NOW = int(time.time())
HOSTILE = {
    "another issuer": _foreign,
    "no signature": _unsigned,
    "a public key as a secret": _shared,
    "another client": _claiming(aud="another-client"),
    "several clients": _claiming(aud=[CLIENT_ID, "another-client"]),
    "authorized for another": _claiming(azp="another-client"),
    "of another sign-in": _claiming(nonce="another"),
    "of no sign-in": _claiming(nonce=None),
    "of no text": _claiming(nonce="\ud800"),
    "with no text in the name": _claiming(name="Ada \udfff"),
    "with no text in anything": _claiming(groups=[{"a": "\0"}]),
    "with no text in the address": _claiming(email="ada@example.com\0"),
    "expired": _claiming(exp=NOW - 120),
    "of tomorrow": _claiming(iat=NOW + 86_400),
    "without an end": _claiming(exp=None),
    "an endless end": _claiming(exp=float("inf")),
    "nobody": _claiming(sub=None),
    "an empty name": _claiming(sub=""),
    "a long name": _claiming(sub="a" * 256),
    "a name that tables can't hold": _claiming(sub="a\0b"),
    "a number": _claiming(sub=7),
    "another key": lambda there, url: there.sign(there.claims(url), key="two", kid="one"),
    "an unknown key": lambda there, url: there.sign(there.claims(url), key="two"),
    "nonsense": lambda *_: "nonsense",
    "nothing": lambda *_: None,
}


@pytest.mark.django_db
class TestAnAnswerThatLies:
    def test_is_a_sentence_and_changes_nothing(self, there):
        before = counts()
        for name, lie in HOSTILE.items():
            client = browser()
            url = begin(client)
            there.answer(lie(there, url))
            answer = finish(client, url)
            assert refusal(answer) == (409, "sso_failed"), name
            assert "auth_token" not in answer.cookies, name
        assert counts() == before

    def test_several_clients_are_right_if_it_is_authorized_for_us(self, there):
        assert sign_in(there, aud=[CLIENT_ID, "b"], azp=CLIENT_ID).status_code == 200

    def test_and_works_in_no_other_browser_and_once(self, there):
        client, other = browser(), browser()
        url = begin(client)
        begin(other)
        there.answer(there.sign(there.claims(url)))
        before = counts()
        for stranger in (other, browser()):
            assert refusal(finish(stranger, url)) == (409, "sso_failed")
        assert refusal(finish(client, url, state="another")) == (409, "sso_failed")
        assert counts() == before
        assert there.forms == [], "nobody was asked"
        copy = browser()
        copy.cookies["sso"] = client.cookies["sso"].value
        assert finish(client, url).status_code == 200
        assert refusal(finish(copy, url)) == (409, "sso_failed")
        assert len(there.forms) == 1

    def test_and_names_the_issuer_where_it_must(self, there):
        client = browser()
        url = begin(client)
        there.answer(there.sign(there.claims(url)))
        assert refusal(finish(client, url, iss="https://evil.example")) == (409, "sso_failed")
        there.set_metadata(authorization_response_iss_parameter_supported=True)
        issuer.forget()
        client = browser()
        url = begin(client)
        assert refusal(finish(client, url)) == (409, "sso_failed")
        client = browser()
        url = begin(client)
        there.answer(there.sign(there.claims(url)))
        assert finish(client, url, iss=there.origin).status_code == 200

    def test_and_may_be_a_refusal(self, there):
        client = browser()
        refused = finish(client, begin(client), error="access_denied", code="")
        assert refusal(refused) == (409, "sso_failed")
        assert "(access_denied)" in refused.json()["error"]
        client = browser()
        odd = finish(client, begin(client), error="<b>evil", code="").json()["error"]
        assert "evil" not in odd
        there.pages["/token"] = (400, {"error": "invalid_grant"})
        client = browser()
        assert refusal(finish(client, begin(client))) == (409, "sso_failed")


@pytest.mark.django_db
class TestKeys:
    def test_are_fetched_anew_for_an_unknown_one_once_a_minute(self, there):
        assert sign_in(there).status_code == 200
        for _ in range(3):
            client = browser()
            url = begin(client)
            there.answer(there.sign(there.claims(url), key="two"))
            assert refusal(finish(client, url)) == (409, "sso_failed")
        assert there.asked.count("/keys") == 1, "the first fetch was less than a minute ago"
        issuer._known.anew_at = 0.0
        for _ in range(2):
            client = browser()
            url = begin(client)
            there.answer(there.sign(there.claims(url), key="two"))
            assert refusal(finish(client, url)) == (409, "sso_failed")
        assert there.asked.count("/keys") == 2
        there.pages["/keys"] = (200, {"keys": [jwk_of("one"), jwk_of("two")]})
        issuer._known.anew_at = 0.0
        client = browser()
        url = begin(client)
        there.answer(there.sign(there.claims(url), key="two"))
        assert finish(client, url).status_code == 200
        assert there.asked.count(METADATA) == 1

    @pytest.mark.parametrize(
        "wrong",
        [[jwk_of("one"), jwk_of("one")], [{**jwk_of("two"), "kid": "one"}]],
        ids=["twice", "exchanged"],
    )
    def test_are_fetched_anew_after_one_wrong_answer_once_a_minute(self, there, wrong):
        right = there.pages["/keys"]
        there.pages["/keys"] = (200, {"keys": wrong})
        for _ in range(2):
            assert refusal(sign_in(there)) == (409, "sso_failed")
        assert there.asked.count("/keys") == 1
        there.pages["/keys"] = right
        assert refusal(sign_in(there)) == (409, "sso_failed")
        issuer._known.anew_at = 0.0
        assert sign_in(there).status_code == 200
        assert there.asked.count("/keys") == 2


@pytest.mark.django_db
class TestAnIssuerThatFails:
    @pytest.mark.parametrize("how", [SILENT, DRIPPING, ENDLESS, "no JSON", "a redirect", "a crash"])
    def test_is_a_503_within_its_time(self, there, how, monkeypatch):
        # Its metadata are known from here on, so that no honest answer has to come within the short time.
        begin(browser())
        monkeypatch.setattr(issuer, "SECONDS", 0.3)
        page = {"no JSON": (200, "<html>"), "a redirect": (302, ""), "a crash": (500, "")}.get(
            how, (200, how)
        )
        before = counts()
        for path in ("/token", "/keys", METADATA):
            honest = there.pages.get(path)
            if path == METADATA:
                issuer.forget()
                there.pages[path] = page
                answer = browser().post(f"{SSO}/begin")
            else:
                client = browser()
                url = begin(client)
                there.answer(there.sign(there.claims(url)))
                there.pages[path] = page
                answer = finish(client, url)
            there.pages[path] = honest
            issuer._known.away_until = 0.0
            assert refusal(answer) == (503, "issuer_unavailable"), path
            assert answer["Retry-After"]
        assert counts() == before

    def test_is_not_asked_again_for_ten_seconds(self, there):
        there.pages[METADATA] = (500, "")
        for _ in range(3):
            assert refusal(browser().post(f"{SSO}/begin")) == (503, "issuer_unavailable")
        assert there.asked.count(METADATA) == 1

    def test_or_says_that_it_is_another(self, there):
        there.set_metadata(issuer="https://evil.example")
        assert refusal(browser().post(f"{SSO}/begin")) == (503, "issuer_unavailable")

    def test_or_takes_no_secret(self, there):
        there.set_metadata(token_endpoint_auth_methods_supported=["private_key_jwt"])
        assert refusal(browser().post(f"{SSO}/begin")) == (503, "issuer_unavailable")

    def test_in_production_it_is_asked_over_tls_alone(self, there, settings):
        settings.PRODUCTION = True
        assert refusal(browser().post(f"{SSO}/begin")) == (503, "issuer_unavailable")
        assert there.asked == []


class TestSlots:
    """Without the lane of the web process, as in a command, a thread waits for its turn."""

    def test_two_ask_at_once_and_others_wait(self, monkeypatch):
        monkeypatch.setattr(issuer.PERMITS, "_patience", 60)
        inside, most = [], []

        def ask():
            with issuer.slot():
                inside.append(True)
                most.append(len(inside))
                time.sleep(0.001)
                inside.pop()

        threads = [threading.Thread(target=ask) for _ in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(most) == 50
        assert max(most) <= 2

    @pytest.mark.django_db
    def test_without_one_nothing_is_used_up(self, there, monkeypatch):
        monkeypatch.setattr(issuer.PERMITS, "_patience", 0.01)
        client = browser()
        url = begin(client)
        there.answer(there.sign(there.claims(url)))
        with issuer.slot(), issuer.slot():
            answer = finish(client, url)
            assert refusal(answer) == (503, "overloaded")
            assert int(answer["Retry-After"]) > 0
        assert finish(client, url).status_code == 200


@pytest.mark.django_db
def test_without_an_issuer_there_are_no_such_endpoints(cast):
    for path in ("begin", "finish", "link", "link-mail", "link-by-mail"):
        assert refusal(browser().post(f"{SSO}/{path}", {})) == (404, "not_found")
