"""Calls race on real connections: about the last owner, a deleted parent, the ceilings, and keys."""

from collections.abc import Callable
from functools import partial

import pytest

from accounts.emails import Email
from accounts.models import Session, User
from accounts.services import change_password, log_in
from accounts.sessions import Device, open_session
from audit.models import AuditEntry
from pipedai.api.errors import ApiError
from pipedai.events import Actor
from testing.processes.racing import ROUNDS, at_once
from testing.world.cast import TEST_ACTOR, register, session_cookie
from testing.world.runs import Runs
from testing.world.trigger_values import trigger_values
from testing.world.users import PASSWORD, UserFactory
from triggers.models import Run, Trigger
from triggers.services import TRIGGERS
from workers.models import Worker
from workers.services import deregister_worker
from workspaces.api_keys import mint_api_key
from workspaces.members import add_member, change_role, remove_member
from workspaces.models import ApiKey, Environment, Membership, Workspace
from workspaces.roles import Role
from workspaces.services import (
    create_environment,
    create_workspace,
    delete_environment,
    update_environment,
)


@pytest.fixture
def cast(committed_cast):
    return committed_cast


def went(answers):
    """Tells for each call whether it succeeded."""
    return [not isinstance(answer, ApiError) for answer in answers]


def statuses(answers):
    return sorted(a.status_code if isinstance(a, ApiError) else 200 for a in answers)


def owners(cast):
    return list(Membership.objects.filter(environment=cast.environment, role="owner"))


def count(action):
    return AuditEntry.objects.filter(action=action).count()


# --- The last owner


@pytest.mark.parametrize("round_", ROUNDS)
@pytest.mark.parametrize("ways", ["removed twice", "demoted twice", "removed and demoted"])
def test_of_two_owners_who_go_at_once_one_stays(cast, ways, round_):
    Membership.objects.filter(user=cast.admin).update(role="owner")
    here = {"environment_id": cast.environment.id, "actor": TEST_ACTOR}

    def leave(user):
        return partial(remove_member, **here, user_id=user.id)

    def step_down(user):
        return partial(change_role, **here, user_id=user.id, role=Role.VIEWER)

    first, second = {
        "removed twice": (leave, leave),
        "demoted twice": (step_down, step_down),
        "removed and demoted": (leave, step_down),
    }[ways]
    answers = at_once(first(cast.owner), second(cast.admin))
    assert statuses(answers) == [200, 409]
    assert [member.role for member in owners(cast)] == ["owner"]
    assert count("member.removed") + count("member.role-changed") == 1


@pytest.mark.parametrize("round_", ROUNDS)
def test_of_two_owners_who_remove_each_other_the_second_is_no_member_any_more(cast, round_):
    Membership.objects.filter(user=cast.admin).update(role="owner")

    def remove(user, by):
        return partial(
            remove_member,
            environment_id=cast.environment.id,
            user_id=user.id,
            actor=Actor("user", by.id),
        )

    answers = at_once(remove(cast.owner, cast.admin), remove(cast.admin, cast.owner))
    assert statuses(answers) == [200, 404]
    assert len(owners(cast)) == 1
    assert count("member.removed") == 1


@pytest.mark.parametrize("round_", ROUNDS)
def test_somebody_added_twice_at_once_is_a_member_once(cast, round_):
    add = partial(
        add_member,
        environment_id=cast.environment.id,
        role=Role.VIEWER,
        user_id=cast.stranger.id,
        actor=TEST_ACTOR,
    )
    assert statuses(at_once(*[add] * 4)) == [200, 409, 409, 409]
    assert count("member.added") == 1


# --- A parent that is deleted


def _trigger(cast):
    values = trigger_values()
    return partial(
        TRIGGERS.create, environment_id=cast.environment.id, actor=TEST_ACTOR, values=values
    )


def _worker(cast):
    return partial(register, cast.mint("wrk"), "host-new")


def _key(cast):
    return partial(
        mint_api_key,
        environment_id=cast.environment.id,
        name="k",
        kind="pwk",
        user_id=cast.owner.id,
        actor=TEST_ACTOR,
    )


def _member(cast):
    return partial(
        add_member,
        environment_id=cast.environment.id,
        role=Role.VIEWER,
        user_id=cast.stranger.id,
        actor=TEST_ACTOR,
    )


def _name(cast):
    environment = cast.environment.id
    values = {"name": "staging"}
    return partial(update_environment, environment_id=environment, values=values, actor=TEST_ACTOR)


@pytest.fixture
def emptied(cast):
    Trigger.objects.update(deleted_at="2026-01-01T00:00:00Z", next_run_at=None)
    Worker.objects.update(deleted_at="2026-01-01T00:00:00Z", token_digest=None)
    return cast


@pytest.mark.parametrize("round_", ROUNDS)
@pytest.mark.parametrize("child", [_trigger, _worker, _key, _member, _name])
def test_nothing_is_made_under_an_environment_that_is_being_deleted(emptied, child, round_):
    create = child(emptied)
    delete = partial(delete_environment, environment_id=emptied.environment.id, actor=TEST_ACTOR)
    made, deleted = went(at_once(create, delete))
    environment = Environment.objects.get(id=emptied.environment.id)
    assert deleted is (environment.deleted_at is not None)
    if child in (_trigger, _worker):
        assert made is not deleted
    else:
        assert deleted  # such a child does not prevent the deletion, whichever call came first


@pytest.mark.parametrize("round_", ROUNDS)
def test_of_two_deletions_of_an_environment_one_happens(emptied, round_):
    delete = partial(delete_environment, environment_id=emptied.environment.id, actor=TEST_ACTOR)
    assert statuses(at_once(delete, delete)) == [200, 404]
    assert count("environment.deleted") == 1


@pytest.mark.parametrize("round_", ROUNDS)
def test_a_trigger_that_gets_a_worker_that_goes_has_none_or_keeps_it(cast, round_):
    other = cast.register("host-2")
    worker = Worker.objects.get(id=other.worker_id)
    assigned, gone = went(
        at_once(
            partial(
                TRIGGERS.update,
                cast.trigger_id,
                values={"worker_id": other.worker_id},
                actor=TEST_ACTOR,
            ),
            partial(deregister_worker, worker=worker, reassign_to=None, actor=TEST_ACTOR),
        )
    )
    assert assigned is not gone
    trigger = Trigger.objects.get()
    assert trigger.worker_id == (other.worker_id if assigned else cast.worker.worker_id)


@pytest.mark.parametrize("round_", ROUNDS)
def test_of_a_run_and_the_deletion_of_its_trigger_one_happens(cast, round_):
    runs = Runs(cast, cast.trigger_id)
    queued, deleted = went(
        at_once(runs.queue, partial(TRIGGERS.delete, cast.trigger_id, actor=TEST_ACTOR))
    )
    assert queued is not deleted
    assert Run.objects.count() == queued


# --- Changes of the same object


@pytest.mark.parametrize("round_", ROUNDS)
def test_two_changes_of_different_fields_are_both_there(cast, round_):
    change = partial(TRIGGERS.update, cast.trigger_id, actor=TEST_ACTOR)
    at_once(
        partial(change, values={"name": "Renamed"}),
        partial(change, values={"prompt": "Do more."}),
        partial(change, values={"max_retries": 7}),
    )
    trigger = Trigger.objects.get()
    assert (trigger.name, trigger.revision.prompt, trigger.max_retries) == (
        "Renamed",
        "Do more.",
        7,
    )
    assert count("trigger.updated") == 3


@pytest.mark.parametrize("round_", ROUNDS)
def test_the_same_change_twice_at_once_is_told_once(cast, round_):
    change = partial(TRIGGERS.update, cast.trigger_id, values={"name": "x"}, actor=TEST_ACTOR)
    assert went(at_once(change, change, change)) == [True] * 3
    assert count("trigger.updated") == 1


@pytest.mark.parametrize("round_", ROUNDS)
def test_a_claim_and_a_reassignment_leave_the_run_with_one_worker(cast, round_):
    runs = Runs(cast, cast.trigger_id)
    run_id, heir = runs.queue(), cast.register("heir")
    worker = Worker.objects.get(id=cast.worker.worker_id)
    claimed, reassigned = went(
        at_once(
            partial(runs.claim, run_id),
            partial(deregister_worker, worker=worker, reassign_to=heir.worker_id, actor=TEST_ACTOR),
        )
    )
    assert reassigned
    run = runs.stored(run_id)
    if claimed:
        assert (run["status"], run["worker_id"]) == ("claimed", worker.id)
    else:
        assert (run["status"], run["worker_id"]) == ("queued", heir.worker_id)


# --- Ceilings


@pytest.mark.parametrize("round_", ROUNDS)
@pytest.mark.parametrize(
    ("ceiling", "child", "model"),
    [
        ("triggers", _trigger, Trigger),
        ("keys", _key, ApiKey),
    ],
)
def test_the_last_place_goes_to_one(cast, ceilings, ceiling, child, model, round_):
    def there():
        return model.objects.filter(environment=cast.environment).count()

    ApiKey.objects.all().delete()
    before = there()
    ceilings[ceiling] = before + 1
    assert statuses(at_once(*[child(cast)] * 4)) == [200, 409, 409, 409]
    assert there() == before + 1


@pytest.mark.parametrize("round_", ROUNDS)
def test_the_last_members_place_goes_to_one(cast, ceilings, round_):
    ceilings["members"] = 5
    people = [UserFactory.create() for _ in range(3)]
    answers = at_once(
        *[
            partial(
                add_member,
                environment_id=cast.environment.id,
                role=Role.VIEWER,
                user_id=user.id,
                actor=TEST_ACTOR,
            )
            for user in people
        ]
    )
    assert statuses(answers) == [200, 409, 409]


@pytest.mark.parametrize("round_", ROUNDS)
def test_the_last_workers_place_goes_to_one(cast, ceilings, round_):
    ceilings["workers"] = 2
    tokens = [cast.mint("wrk") for _ in range(3)]
    answers = at_once(
        *[partial(register, token, f"host-{n + 2}") for n, token in enumerate(tokens)]
    )
    assert statuses(answers) == [200, 409, 409]
    assert ApiKey.objects.filter(consumed_at__isnull=False).count() == 2


@pytest.mark.parametrize("round_", ROUNDS)
def test_the_last_environment_goes_to_one(cast, ceilings, round_):
    ceilings["environments"] = 2
    create = [
        partial(
            create_environment,
            workspace_id=cast.workspace.id,
            name=f"e{n}",
            user_id=cast.owner.id,
            actor=TEST_ACTOR,
        )
        for n in range(3)
    ]
    assert statuses(at_once(*create)) == [200, 409, 409]


@pytest.mark.parametrize("round_", ROUNDS)
def test_the_last_workspace_goes_to_one(cast, ceilings, round_):
    ceilings["workspaces"] = 2  # the cast has one already
    create = partial(create_workspace, name="w", user_id=cast.owner.id, actor=TEST_ACTOR)
    assert statuses(at_once(*[create] * 4)) == [200, 409, 409, 409]
    assert Workspace.objects.filter(created_by=cast.owner).count() == 2


@pytest.mark.parametrize("round_", ROUNDS)
@pytest.mark.parametrize("who", ["owner", "admin"])
def test_the_last_trigger_of_a_creators_workspaces_goes_to_one(cast, ceilings, who, round_):
    """Calls in four environments of two workspaces race, made by the creator or by another user."""
    ceilings["triggersOfCreator"] = 2  # the cast has one already
    actor, here = Actor("user", getattr(cast, who).id), {"user_id": cast.owner.id}
    other = create_workspace(name="other", actor=TEST_ACTOR, **here)
    environments = [cast.environment] + [
        create_environment(workspace_id=workspace.id, name=f"e{n}", actor=TEST_ACTOR, **here)
        for n, workspace in enumerate([cast.workspace, other, other])
    ]
    Membership.objects.bulk_create(
        Membership(environment=environment, user=cast.admin, role="admin")
        for environment in environments[1:]
    )
    create = [
        partial(
            TRIGGERS.create, environment_id=environment.id, actor=actor, values=trigger_values()
        )
        for environment in environments
    ]
    assert statuses(at_once(*create)) == [200, 409, 409, 409]
    assert Trigger.objects.count() == 2


# --- Keys and people


@pytest.mark.parametrize("round_", ROUNDS)
@pytest.mark.parametrize("change", ["removed", "demoted"])
def test_no_registration_key_outlives_its_minters_rights(cast, change, round_):
    mint = partial(
        mint_api_key,
        environment_id=cast.environment.id,
        name="k",
        kind="wrk",
        user_id=cast.admin.id,
        actor=TEST_ACTOR,
    )
    ends: dict[str, Callable[..., object]] = {
        "removed": remove_member,
        "demoted": partial(change_role, role=Role.VIEWER),
    }
    answers = at_once(
        mint,
        partial(
            ends[change],
            environment_id=cast.environment.id,
            user_id=cast.admin.id,
            actor=TEST_ACTOR,
        ),
        mint,
    )
    assert went(answers)[1]
    alive = ApiKey.objects.filter(created_by=cast.admin, revoked_at__isnull=True)
    assert alive.count() == 0


@pytest.mark.parametrize("round_", ROUNDS)
def test_a_registration_key_used_and_revoked_at_once_is_one_of_both(cast, round_):
    _, token = mint_api_key(
        environment_id=cast.environment.id,
        name="k",
        kind="wrk",
        user_id=cast.admin.id,
        actor=TEST_ACTOR,
    )
    registered, removed = went(
        at_once(
            partial(register, token, "host-2"),
            partial(
                remove_member,
                environment_id=cast.environment.id,
                user_id=cast.admin.id,
                actor=TEST_ACTOR,
            ),
        )
    )
    key = ApiKey.objects.get(created_by=cast.admin)
    assert removed
    assert registered is (key.consumed_at is not None)
    assert registered is not (key.revoked_at is not None)


@pytest.mark.parametrize("round_", ROUNDS)
def test_no_session_opened_with_the_old_password_outlives_its_change(cast, round_):
    user = User.objects.get(id=cast.owner.id)
    session_cookie(user)
    changed, _ = at_once(
        partial(
            change_password,
            user_id=user.id,
            current_password=PASSWORD,
            new_password="another long password",
            actor=TEST_ACTOR,
            enter=lambda user: open_session(user, Device(b"", None, "")),
        ),
        partial(
            log_in,
            email=Email(user.email),
            password=PASSWORD,
            replaces=None,
            device=Device(b"", None, ""),
            actor=TEST_ACTOR,
        ),
    )
    assert not isinstance(changed, ApiError)
    live = Session.objects.filter(user=user, revoked_at__isnull=True)
    assert [session.id for session in live] == [getattr(changed, "id", None)]
