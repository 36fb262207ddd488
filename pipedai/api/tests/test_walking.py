"""A client that walks a list while rows are added and deleted sees each row that stays exactly once."""

import json
from datetime import datetime, timedelta
from itertools import count

from django.utils import timezone

from accounts.models import Session
from notices.models import Channel, Incident, Notice, NoticeAttempt
from pipedai.api.tests.test_query_counts import BY_NAME, LISTS
from testing.world.cases import cases
from testing.world.undone import undone
from triggers.models import (
    Approval,
    Budget,
    Delivery,
    DeliveryAttempt,
    Event,
    EventDecision,
    EventSource,
    Run,
    RunText,
    Tick,
    Trigger,
    TriggerRevision,
)
from workers.models import Enrollment, Pool, Worker
from workspaces.models import ApiKey, Connection, Environment, Invitation, Membership, Workspace


def _delete(model, **names):
    """Returns a function that deletes the row of an item, which it finds by these fields."""

    def deleting(item):
        found = model.objects.filter(**{column: item[name] for column, name in names.items()})
        assert found.delete()[0] >= 1

    return deleting


def _hide(model):
    """Returns a function that soft-deletes the row of an item."""

    def hiding(item):
        ended = {"token_digest": None} if model is Worker else {}
        rows = model.objects.filter(id=item["id"])
        assert rows.update(deleted_at=timezone.now(), **ended) == 1

    return hiding


def _delete_run(item):
    """Deletes a run with its long text."""
    RunText.objects.filter(run_id=item["id"]).delete()
    Run.objects.filter(id=item["id"]).delete()


def _delete_delivery(item):
    """Deletes a delivery with its attempts."""
    DeliveryAttempt.objects.filter(delivery_id=item["id"]).delete()
    Delivery.objects.filter(id=item["id"]).delete()


def _delete_notice(item):
    """Deletes a notice with its attempts."""
    NoticeAttempt.objects.filter(notice_id=item["id"]).delete()
    Notice.objects.filter(id=item["id"]).delete()


def _delete_event(item):
    """Deletes an event with its decisions, which go with it in the database alone."""
    EventDecision.objects.filter(event_id=item["id"]).delete()
    Event.objects.filter(id=item["id"]).delete()


def _delete_tick(item):
    """Deletes a tick by its time to the millisecond, because the list shows no id of ticks."""
    moment = datetime.fromisoformat(item["tickAt"])
    shown = (moment, moment + timedelta(microseconds=999))
    assert Tick.objects.filter(tick_at__range=shown).delete()[0] == 1


def _hide_source(item):
    """Soft-deletes a source, which then has no secrets."""
    EventSource.objects.filter(id=item["id"]).update(
        deleted_at=timezone.now(), secrets=None, secrets_key=None
    )


def _hide_workspace(item):
    """Hides a workspace by ending the caller's membership and authorship, because workspaces are never deleted."""
    Workspace.objects.filter(id=item["id"]).update(created_by=Membership.objects.latest("id").user)


def _untouchable(item):
    """Deletes nothing, because the audit log does not allow it."""


# The function that removes a row from each list.
LEAVING = {
    "GET auth/sessions": _delete(Session, id="id"),
    "GET environments/:environment/invitations": _delete(Invitation, id="id"),
    "GET workspaces": _hide_workspace,
    "GET workspaces/:workspace/environments": _hide(Environment),
    "GET environments/:environment/members": _delete(Membership, user_id="userId"),
    "GET environments/:environment/api-keys": _delete(ApiKey, id="id"),
    "GET environments/:environment/audit-log": _untouchable,
    "GET environments/:environment/triggers": _hide(Trigger),
    "GET environments/:environment/runs": _delete_run,
    "GET triggers/:trigger/runs": _delete_run,
    "GET triggers/:trigger/ticks": _delete_tick,
    "GET triggers/:trigger/revisions": _delete(TriggerRevision, id="id"),
    "GET triggers/:trigger/deliveries": _delete_delivery,
    "GET environments/:environment/workers": _hide(Worker),
    "GET workspaces/:workspace/workers": _hide(Worker),
    "GET environments/:environment/pools": _hide(Pool),
    "GET environments/:environment/enrollments": _delete(Enrollment, id="id"),
    "GET environments/:environment/incidents": _delete(Incident, id="id"),
    "GET environments/:environment/budgets": _hide(Budget),
    "GET environments/:environment/approvals": _delete(Approval, id="id"),
    "GET environments/:environment/connections": _delete(Connection, id="id"),
    "GET environments/:environment/sources": _hide_source,
    "GET environments/:environment/events": _delete_event,
    "GET sources/:source/events": _delete_event,
    "GET environments/:environment/channels": _hide(Channel),
    "GET channels/:channel/notices": _delete_notice,
}


@cases("name", LISTS)
def test_a_row_that_stays_is_shown_once(stage, name):
    with undone():
        walk(stage, BY_NAME[name], LISTS[name], LEAVING[name])


def walk(stage, route, make, leave):
    """Reads a list in four or five pages. After each, a row comes, and after each second one, two rows go."""
    cast = stage.cast
    make(cast, 7)
    client, url = route.caller(cast), route.url(stage)

    def read(**query):
        body = client.get(url, query).json()
        return [json.dumps(item, sort_keys=True) for item in body["items"]], body["nextCursor"]

    before, _ = read(limit=200)
    limit = max(2, len(before) // 4)
    # We remove only rows that nothing else in this test needs.
    removable = before[1:6]
    seen, left, cursor = [], [], None
    for turn in count():
        items, cursor = read(limit=limit, **({"cursor": cursor} if cursor else {}))
        seen += items
        if cursor is None:
            break
        make(cast, 1)
        if turn % 2 == 0 and leave is not _untouchable:
            for gone in (removable.pop(0), removable.pop()) if len(removable) > 1 else ():
                leave(json.loads(gone))
                left.append(gone)
    assert turn >= 2
    assert len(seen) == len(set(seen))
    stayed = [item for item in before if item not in left]
    assert [item for item in seen if item in stayed] == stayed
    assert left or leave is _untouchable
