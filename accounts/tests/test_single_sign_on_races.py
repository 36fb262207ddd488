"""Sign-ins at the issuer, links and deletions race on real connections."""

from functools import partial
from urllib.parse import parse_qs, urlsplit

import pytest
from django.core import signing

from accounts import issuer, single_sign_on
from accounts.addresses import lock_holder
from accounts.models import Identity, Session, User
from accounts.own_account import erase_account
from accounts.services import deactivate_user
from accounts.sessions import Device
from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import ApiError
from pipedai.events import SYSTEM, Actor
from testing.processes.openid_issuer import CLIENT_ID, CLIENT_SECRET, openid_issuer
from testing.processes.racing import ROUNDS, at_once
from testing.world.mails import MAIL_SERVER, prove, token_to
from testing.world.users import UserFactory
from workspaces.models import Membership

pytestmark = pytest.mark.parametrize("round_", ROUNDS)


@pytest.fixture
def there(settings, own_database):
    with openid_issuer() as found:
        settings.OIDC_ISSUER = found.origin
        settings.OIDC_CLIENT_ID, settings.OIDC_CLIENT_SECRET = CLIENT_ID, CLIENT_SECRET
        settings.EMAIL_URL = MAIL_SERVER
        issuer.forget()
        yield found
    issuer.forget()


def sign_ins(there, *people):
    """Returns calls that finish sign-ins of these people."""
    calls, tokens = [], {}
    for number, claims in enumerate(people):
        url, cookie = single_sign_on.begin(on="/")
        code = f"code-{number}"
        tokens[code] = there.sign(there.claims(url, **claims))
        calls.append(
            partial(
                single_sign_on.finish,
                cookie=cookie,
                brought={
                    "state": parse_qs(urlsplit(url).query)["state"][0],
                    "code": code,
                    "iss": "",
                    "error": "",
                },
                replaces=None,
                device=Device(b"", None, ""),
                actor=Actor("user"),
            )
        )
    there.answer_by_code(tokens)
    return calls


def codes(answers):
    return sorted(each.code if isinstance(each, ApiError) else "" for each in answers)


def test_one_person_twice_gets_one_account(there, round_):
    answers = at_once(*sign_ins(there, {}, {}))
    assert codes(answers) == ["", ""], answers
    (user,) = User.objects.filter(email="ada@example.com")
    assert Identity.objects.get().user_id == user.id
    assert Session.objects.filter(user=user).count() == 2


def test_who_finds_the_account_that_their_other_sign_in_has_just_made_gets_it(
    there, round_, monkeypatch
):
    """The other sign-in commits between the look for the linked account and that for the address."""
    late, soon = sign_ins(there, {}, {})
    real = lock_holder

    def after_the_other(email):
        monkeypatch.setattr(single_sign_on, "lock_holder", real)
        (other,) = at_once(soon)
        assert codes([other]) == [""]
        return real(email)

    monkeypatch.setattr(single_sign_on, "lock_holder", after_the_other)
    user = late().user
    assert Identity.objects.get().user_id == user.id
    assert Session.objects.filter(user=user).count() == 2


def test_two_people_with_one_address_get_one_account(there, round_):
    answers = at_once(*sign_ins(there, {"sub": "a"}, {"sub": "b"}))
    assert codes(answers) == ["", ErrorCode.SSO_FAILED]
    assert User.objects.filter(email="ada@example.com").count() == 1


def test_one_way_back_works_once(there, round_):
    (call,) = sign_ins(there, {})
    answers = at_once(call, call)
    assert codes(answers) == ["", ErrorCode.SSO_FAILED]
    assert len(there.forms) == 1


def test_one_link_of_a_mail_works_once(there, round_):
    ada = UserFactory.create(email="ada@example.com")
    prove(ada)
    said = {"issuer": there.origin, "sub": "a", "user": str(ada.id), "email": ada.email}
    cookie = single_sign_on.mail_link(cookie=signing.dumps(said, salt=single_sign_on.PENDING))
    use = partial(
        single_sign_on.link_by_mail,
        cookie=cookie,
        token=token_to("ada@example.com", "link"),
        code="",
        actor=Actor("user"),
    )
    assert codes(at_once(use, use)) == ["", ErrorCode.LINK_UNUSABLE]
    assert Identity.objects.get().sub == "a"


def test_a_deactivation_leaves_no_session(there, round_):
    ada = UserFactory.create(email="ada@example.com")
    prove(ada)
    Identity.objects.create(user=ada, issuer=there.origin, sub="ada-at-work")
    (call,) = sign_ins(there, {})
    at_once(call, partial(deactivate_user, user_id=ada.id, actor=SYSTEM))
    assert not Session.objects.filter(user=ada, revoked_at__isnull=True).exists()


def test_of_two_owners_who_delete_their_accounts_one_stays(committed_cast, round_):
    environment, owner = committed_cast.strange_environment, committed_cast.stranger
    second = UserFactory.create()
    Membership.objects.create(environment=environment, user=second, role="owner")
    calls = [partial(erase_account, user_id=each.id, actor=SYSTEM) for each in (owner, second)]
    assert codes(at_once(*calls)) == ["", ErrorCode.LAST_OWNER]
    assert Membership.objects.filter(environment=environment, role="owner").count() == 1
