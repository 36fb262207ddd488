"""Calls about accounts race on real connections: tokens that are used twice, and addresses that two want."""

from functools import partial

import pytest
from django.db import transaction

from accounts.addresses import change_email, verify_email
from accounts.emails import Email
from accounts.mails import LinkUnusable
from accounts.models import Session, User
from accounts.registration import register_user
from accounts.services import log_in, reset_password
from accounts.sessions import Device
from pipedai.api.errors import ApiError
from pipedai.api.principal import UserPrincipal
from pipedai.events import Actor
from pipedai.ids import new_id
from testing.processes.racing import ROUNDS, Started, at_once
from testing.world.mails import (
    MAIL_SERVER,
    invite_for_test,
    issue_token,
    mails_to,
    prove,
    token_to,
)
from testing.world.users import PASSWORD, UserFactory
from workspaces.api_keys import mint_api_key
from workspaces.locks import lock_environment
from workspaces.members import accept_invitation, add_member, remove_member, revoke_invitation
from workspaces.models import ApiKey, Invitation, Membership
from workspaces.roles import Role

EMAIL = Email("ada@example.com")
DEVICE = Device(b"", None, "")
NOBODY = Actor("user")

pytestmark = pytest.mark.parametrize("round_", ROUNDS)


@pytest.fixture(autouse=True)
def _mail_server(settings):
    settings.EMAIL_URL = MAIL_SERVER


@pytest.fixture
def cast(committed_cast):
    return committed_cast


@pytest.fixture
def ada(cast):
    return UserFactory.create(email=EMAIL)


def statuses(answers):
    return sorted(a.status_code if isinstance(a, ApiError) else 200 for a in answers)


def principal(user):
    return UserPrincipal(user.id, new_id())


def register(**tokens):
    return partial(
        register_user,
        email=EMAIL,
        password=PASSWORD,
        name="",
        device=DEVICE,
        actor=NOBODY,
        **tokens,
    )


def log_in_as(email=EMAIL):
    return log_in(email=email, password=PASSWORD, replaces=None, device=DEVICE, actor=NOBODY)


def test_an_invitation_is_accepted_once(cast, ada, round_):
    prove(ada)
    token = invite_for_test(cast.environment, cast.owner, EMAIL)
    accept = partial(accept_invitation, token=token, user_id=ada.id, actor=Actor("user", ada.id))
    assert statuses(at_once(accept, accept)) == [200, 409]
    assert Membership.objects.filter(user=ada).count() == 1


def test_an_invitation_is_accepted_or_its_inviter_is_gone(cast, ada, round_):
    prove(ada)
    token = invite_for_test(cast.environment, cast.admin, EMAIL)
    accept = partial(accept_invitation, token=token, user_id=ada.id, actor=Actor("user", ada.id))
    remove = partial(
        remove_member,
        environment_id=cast.environment.id,
        user_id=cast.admin.id,
        actor=Actor("user", cast.owner.id),
    )
    answers = at_once(accept, remove)
    assert statuses(answers[1:]) == [200]
    accepted = not isinstance(answers[0], ApiError)
    assert Membership.objects.filter(user=ada).exists() is accepted


def test_an_invitation_that_is_revoked_while_it_is_accepted_makes_nobody_a_member(
    cast, ada, round_
):
    prove(ada)
    token = invite_for_test(cast.environment, cast.owner, EMAIL)
    revoke = partial(
        revoke_invitation,
        environment_id=cast.environment.id,
        invitation_id=Invitation.objects.get().id,
        actor=Actor("user", cast.owner.id),
    )
    with transaction.atomic():
        revoke()
        accepting = Started(
            partial(accept_invitation, token=token, user_id=ada.id, actor=Actor("user", ada.id))
        )
        accepting.wait_until_blocked()
    answer = accepting.answer()
    assert isinstance(answer, LinkUnusable)
    assert not Membership.objects.filter(user=ada).exists()


@pytest.mark.parametrize("same_token", [True, False])
def test_of_two_registrations_of_one_proved_address_one_wins(cast, ada, same_token, round_):
    tokens = [issue_token("registration", EMAIL, ada) for _ in range(2)]
    second = tokens[0 if same_token else 1]
    calls = [register(registration_token=token) for token in (tokens[0], second)]
    assert statuses(at_once(*calls)) == [200, 409]
    assert User.objects.get(email=EMAIL).has_proved_email
    assert User.objects.filter(email__endswith="@displaced.invalid").count() == 1


def test_two_registrations_of_a_free_address_make_one_account(cast, round_):
    assert statuses(at_once(register(), register())) == [200, 409]


def test_a_reset_works_once(cast, ada, round_):
    prove(ada)
    token = issue_token("reset", EMAIL, ada)
    passwords = ["a fresh horse battery", "another fresh horse"]
    answers = at_once(
        *(
            partial(reset_password, token=token, new_password=each, actor=NOBODY)
            for each in passwords
        )
    )
    assert statuses(answers) == [200, 409]
    won = passwords[0 if not isinstance(answers[0], ApiError) else 1]
    ada.refresh_from_db()
    assert ada.check_password(won)


def test_proving_the_old_address_against_moving_to_a_new_one(cast, ada, round_):
    actor = Actor("user", ada.id)
    change_email(
        principal=principal(ada),
        new_email=Email("new@example.com"),
        current_password=PASSWORD,
        actor=actor,
    )
    tokens = [issue_token("verify", EMAIL, ada), token_to("new@example.com", "change")]
    answers = at_once(
        *(partial(verify_email, principal=principal(ada), token=t, actor=actor) for t in tokens)
    )
    assert not isinstance(answers[1], ApiError)
    ada.refresh_from_db()
    assert (ada.email, ada.has_proved_email) == ("new@example.com", True)


def test_no_change_of_address_outlives_a_new_password(cast, ada, round_):
    """The change waits, after it has verified the old password, for the one who sets the new password."""
    change = partial(
        change_email,
        principal=principal(ada),
        new_email=Email("new@example.com"),
        current_password=PASSWORD,
        actor=Actor("user", ada.id),
    )
    with transaction.atomic():
        User.objects.select_for_update(no_key=True).get(id=ada.id)
        changing = Started(change)
        changing.wait_until_blocked()
        User.objects.filter(id=ada.id).update(password="another")
    assert isinstance(changing.answer(), ApiError)
    assert mails_to("new@example.com") == []


def test_two_accounts_that_want_one_address_do_not_both_get_it(cast, ada, round_):
    others = [UserFactory.create() for _ in range(2)]
    tokens = [issue_token("change", EMAIL, other) for other in others]
    answers = at_once(
        *(
            partial(
                verify_email, principal=principal(other), token=token, actor=Actor("user", other.id)
            )
            for other, token in zip(others, tokens, strict=True)
        )
    )
    assert statuses(answers) == [200, 409]
    assert User.objects.get(email=EMAIL).id in [other.id for other in others]


def test_no_session_of_the_old_account_outlives_it(cast, ada, round_):
    token = issue_token("registration", EMAIL, ada)
    answers = at_once(register(registration_token=token), log_in_as)
    assert not isinstance(answers[0], ApiError)
    live = Session.objects.filter(user=ada, revoked_at__isnull=True)
    assert not live.exists()


def test_a_membership_and_a_key_that_come_meanwhile_go_too(cast, ada, round_):
    """The owner adds the old account by its id, and the old account mints a key, while it is displaced."""
    Membership.objects.create(environment=cast.environment, user=ada, role="admin")
    token = issue_token("registration", EMAIL, ada)
    add = partial(
        add_member,
        environment_id=cast.strange_environment.id,
        user_id=ada.id,
        role=Role.VIEWER,
        actor=Actor("user", cast.stranger.id),
    )
    mint = partial(
        mint_api_key,
        environment_id=cast.environment.id,
        name="theirs",
        kind="pwk",
        user_id=ada.id,
        actor=Actor("user", ada.id),
    )
    answers = at_once(register(registration_token=token), add, mint)
    assert not isinstance(answers[0], ApiError)
    assert not Membership.objects.filter(user=ada).exists()
    assert not ApiKey.objects.filter(created_by=ada, revoked_at__isnull=True).exists()


def test_a_displacement_waits_for_the_environment_before_it_locks_the_user(cast, ada, round_):
    """Whoever changes members has locked the environment and then needs the user: the other order would deadlock."""
    Membership.objects.create(environment=cast.environment, user=ada, role="admin")
    token = issue_token("registration", EMAIL, ada)
    with transaction.atomic():
        lock_environment(cast.environment.id)
        displacing = Started(register(registration_token=token))
        displacing.wait_until_blocked()
        User.objects.select_for_update(no_key=True, nowait=True).get(id=ada.id)
    assert not isinstance(displacing.answer(), ApiError)


def test_two_who_accept_invitations_of_each_other_do_not_block_each_other(cast, round_):
    prove(cast.owner, cast.stranger)
    here, there = cast.environment, cast.strange_environment
    calls = [
        partial(accept_invitation, token=token, user_id=user.id, actor=Actor("user", user.id))
        for user, token in (
            (cast.stranger, invite_for_test(here, cast.owner, cast.stranger.email)),
            (cast.owner, invite_for_test(there, cast.stranger, cast.owner.email)),
        )
    ]
    assert statuses(at_once(*calls)) == [200, 200]


def test_an_inviter_who_takes_the_address_blocks_nobody_who_registers_with_it(cast, round_):
    prove(cast.owner)
    invitation = invite_for_test(cast.environment, cast.owner, EMAIL)
    who = {"principal": principal(cast.owner), "actor": Actor("user", cast.owner.id)}
    change_email(new_email=EMAIL, current_password=PASSWORD, **who)
    with transaction.atomic():
        Membership.objects.select_for_update().get(
            user=cast.owner, environment_id=cast.environment.id
        )
        registering = Started(register(invitation_token=invitation))
        registering.wait_until_blocked()
        moving = Started(partial(verify_email, token=token_to(EMAIL, "change"), **who))
        assert statuses([moving.answer()]) == [200]
    assert statuses([registering.answer()]) == [409]
    assert User.objects.get(email=EMAIL).id == cast.owner.id
