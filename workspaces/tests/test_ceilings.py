"""Staff raise the ceilings of one workspace, and every check of a ceiling counts against that workspace's number."""

from functools import partial

import pytest
from django.db.models import Value

from audit.models import AuditEntry
from pipedai.api.errors import ApiError, CeilingReached, Invalid
from pipedai.events import SYSTEM
from testing.world.cast import TEST_ACTOR
from testing.world.pools import add_pool
from testing.world.trigger_values import trigger_values
from triggers import services as triggers
from triggers.runs.lifecycle import queue_run
from triggers.states import Source
from workers.models import Pool
from workers.pools.services import add_worker
from workspaces.api_keys import mint_api_key
from workspaces.ceilings import MOST_TIMES, PROFILE, raise_ceilings
from workspaces.models import Workspace
from workspaces.services import create_environment


def _trigger(cast):
    values = trigger_values(worker_id=cast.worker.worker_id)
    return partial(
        triggers.TRIGGERS.create,
        environment_id=cast.environment.id,
        values=values,
        actor=TEST_ACTOR,
    )


def _environment(cast):
    names = iter("abcdefgh")
    return lambda: create_environment(
        workspace_id=cast.workspace.id, name=next(names), user_id=cast.owner.id, actor=TEST_ACTOR
    )


def _run(cast):
    return lambda: queue_run(
        trigger_id=cast.trigger_id, source=Source.MANUAL, payload=None, actor=SYSTEM
    )


def _membership(cast):
    return lambda: add_worker(
        pool=Pool.objects.get(id=add_pool(cast)), worker_id=cast.worker.worker_id, actor=TEST_ACTOR
    )


# For each way in which ceilings are checked: a ceiling, what makes one more, and how many the cast has.
CHECKED = [
    ("triggers", _trigger, 1),
    ("triggersOfCreator", _trigger, 1),
    ("environments", _environment, 1),
    ("queuedRuns", _run, 0),
    ("poolsOfWorker", _membership, 0),
]


@pytest.mark.parametrize(("name", "making", "there"), CHECKED, ids=[case[0] for case in CHECKED])
def test_a_raise_lets_one_workspace_have_more_and_the_refusal_tells_its_number(
    cast, ceilings, name, making, there
):
    ceilings[name] = there + 1
    make = making(cast)
    make()
    with pytest.raises(CeilingReached, match=rf"\b{there + 1}\b"):
        make()
    other = Workspace.objects.create(name="other", created_by=cast.owner)
    raise_ceilings(workspace_id=other.id, ceilings={name: there + 2}, actor=TEST_ACTOR)
    with pytest.raises(CeilingReached):
        make()
    raise_ceilings(workspace_id=cast.workspace.id, ceilings={name: there + 2}, actor=TEST_ACTOR)
    make()
    with pytest.raises(CeilingReached, match=rf"\b{there + 2}\b"):
        make()


def test_a_key_names_as_many_pools_as_a_worker_of_the_workspace_may_be_in(cast, ceilings):
    ceilings["poolsOfWorker"] = 1
    mint = partial(
        mint_api_key,
        environment_id=cast.environment.id,
        name="two",
        kind="wrk",
        user_id=cast.owner.id,
        pool_ids=sorted([add_pool(cast), add_pool(cast)]),
        actor=TEST_ACTOR,
    )
    with pytest.raises(Invalid):
        mint()
    raise_ceilings(workspace_id=cast.workspace.id, ceilings={"poolsOfWorker": 2}, actor=TEST_ACTOR)
    mint()


def test_a_raise_has_bounds_and_is_told_as_a_change(cast):
    for number in (PROFILE["keys"] - 1, PROFILE["keys"] * MOST_TIMES + 1):
        with pytest.raises(ApiError):
            raise_ceilings(
                workspace_id=cast.workspace.id, ceilings={"keys": number}, actor=TEST_ACTOR
            )
    for number in (300, 300, PROFILE["keys"]):
        raise_ceilings(workspace_id=cast.workspace.id, ceilings={"keys": number}, actor=TEST_ACTOR)
    told = AuditEntry.objects.filter(action="workspace.updated").order_by("id")
    assert [entry.metadata for entry in told] == [{"keys": [200, 300]}, {"keys": [300, 200]}]
    assert Workspace.objects.get(id=cast.workspace.id).ceilings == {}


def test_a_profile_that_has_grown_beyond_a_raise_holds(cast, ceilings):
    Workspace.objects.update(ceilings=Value({"triggers": 1}, Workspace._meta.get_field("ceilings")))
    _trigger(cast)()
