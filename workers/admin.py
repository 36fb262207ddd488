"""The admin pages of workers, pools and enrollments."""

from typing import Any
from uuid import UUID

from django.contrib.admin import register
from django.db.models import Model, Q, QuerySet
from django.utils import timezone

from pipedai.admin.base import StaffModelAdmin
from pipedai.admin.change_list import LOOKS_THROUGH_CUSTOMERS, Scope
from pipedai.admin.fields import itself, link, of_row, state_of, whether
from pipedai.admin.panels import Related
from pipedai.admin.search import also_find_by
from pipedai.admin.site import site
from pipedai.admin.start_page import Figure, show_figures
from pipedai.admin.support import SupportAction
from pipedai.admin.values import links, list_of, number, page_of, state
from pipedai.sql import fetch_row
from triggers.models import Run, Trigger
from triggers.runs.conditions import is_online
from triggers.states import HELD
from workers.enrollment.issuing import revoke_enrollment
from workers.models import ONLINE_WITHIN, Enrollment, Pool, PoolMember, Worker
from workers.pools.queries import with_workers
from workers.services import approve_worker, revoke_token, update_worker
from workspaces.admin.environments import BY_MEMBER, BY_PLACE
from workspaces.models import ApiKey, Environment, Membership

# The services decide by the database's clock what is online, limited or expired. These pages only show it, so the clock
# of the web process is exact enough.


def _enrollment_state(enrollment: Enrollment) -> str:
    if enrollment.consumed_at:
        return "consumed"
    if enrollment.revoked_at:
        is_code = enrollment.kind == Enrollment.Kind.CODE or enrollment.approved_at
        return "revoked" if is_code else "denied"
    if enrollment.expires_at <= timezone.now():
        return "expired"
    return "active" if enrollment.approved_at else "pending"


def _pools_joined(enrollment: Enrollment) -> Any:
    pools = Pool.objects.filter(id__in=enrollment.pool_ids or ()).order_by("name", "id")
    return links((pool.name, page_of(Pool, pool.id)) for pool in pools)


@register(Enrollment, site=site)
class EnrollmentAdmin(StaffModelAdmin):
    icon = "add_link"
    group = "Machines"
    when_empty = "No host has asked to be let in yet, and nobody has issued a code for one."
    columns = (
        ("Enrollment", itself()), "kind", "Label (unverified)", "State", "environment", "asked_from", "created_at",
    )  # fmt: skip
    list_filter = ("kind", "environment", "worker")
    searched_text = {"label": "label"}
    scopes = (Scope(("environment",), ("created_at", "id")),)
    left_out = ("last_four", "poll_seconds", "polled_at")
    facts = (
        (
            "State",
            of_row(
                lambda row: state(_enrollment_state(row)),
                "kind", "consumed_at", "revoked_at", "approved_at", "expires_at",
            ),
        ),
        "kind",
        # Nobody has verified the label: the admin who issued the code chose it, or the host that asked for the pairing.
        ("Label (unverified)", "label"),
        # A pairing that is not approved yet has no environment.
        "environment",
        ("Role of its key", "role"), ("Pays by", "auth_mode"),
        ("Joins pools", of_row(_pools_joined, "pool_ids")), "asked_from",
        ("Program", "asked_by"), ("Issued, approved or denied by", "decided_by"), "created_at", "approved_at",
        ("Expires", "expires_at"), ("Revoked or denied", "revoked_at"), ("Redeemed", "consumed_at"),
        ("Its worker", "worker"), "id",
    )  # fmt: skip
    support = (
        SupportAction(
            "revoke", "Revoke the enrollment", "Nobody can redeem it any more.", "The enrollment is revoked.",
            applies=lambda enrollment: _enrollment_state(enrollment) == "active",
            perform=lambda enrollment, actor: revoke_enrollment(
                environment_id=enrollment.environment_id, enrollment_id=enrollment.id, actor=actor
            ),
            is_harsh=True,
        ),
    )  # fmt: skip


def _worker_state(worker: Worker) -> str:
    if worker.deleted_at:
        return "deregistered"
    if worker.disabled_at:
        return "disabled"
    seen = worker.last_seen_at
    is_here = seen and seen > timezone.now() - ONLINE_WITHIN and not worker.signed_off_at
    return "online" if is_here else "offline"


_STATE_READS = ("deleted_at", "disabled_at", "last_seen_at", "signed_off_at")
_TRIGGER = (("Name", itself("name")), "State", "schedule", ("Due next", "next_run_at"))
_LIVE, _NEWEST = Q(deleted_at__isnull=True), ("-created_at", "-id")


def _is_limited(worker: Worker) -> bool:
    return worker.limited_until is not None and worker.limited_until > timezone.now()


@register(Worker, site=site)
class WorkerAdmin(StaffModelAdmin):
    icon = "dns"
    group = "Machines"
    is_shortcut = True
    when_empty = "No worker has registered yet."
    named_by = "label"
    columns = ("label", "Host name", "State", "environment", "version", "Last seen", "Registered")
    list_filter = ("environment",)
    searched_text = {"label": "label", "hostname": "host name", **BY_PLACE}
    searched_address = BY_MEMBER
    looks_through = LOOKS_THROUGH_CUSTOMERS
    scopes = (Scope(("environment",), ("created_at", "id")),)
    # Nobody is shown the word for the account; the page says whether there is one.
    never_read = ("account_id",)
    # They say how events are kept, and which process polled, not how the worker is.
    left_out = ("is_streamed", "process_id")
    facts = (
        ("State", of_row(lambda worker: state(_worker_state(worker)), *_STATE_READS)), "label",
        ("Host name", "hostname"), "environment", ("System", "os"), "version", ("Pays by", "auth_mode"),
        ("Names its account", whether("account_id")), ("Usage limit until", "limited_until"),
        ("Runs at once", "max_concurrency"), ("Waits for decisions", "takes_approvals"),
        ("Has a token", whether("token_digest")), "registered_from",
        ("Brought in by the host of key", link("host_key_id", ApiKey)), ("Registered", "created_at"),
        ("Last seen", "last_seen_at"), ("Signed off", "signed_off_at"),
        ("Waits for approval since", "unapproved_since"), ("Disabled", "disabled_at"),
        ("Deregistered", "deleted_at"), "id",
    )  # fmt: skip
    panels = (
        Related(
            "In hand", Run, (("Run", itself()), "State", "trigger", "claimed_at", ("Lease ends", "lease_expires_at")),
            by="worker", where=Q(slot__isnull=False, status__in=HELD), order=("slot",),
            nothing="No run at this moment.",
        ),
        Related(
            "Its pools", PoolMember, (("Name", "pool"), ("Since", "created_at")), by="worker", order=("pool_id",),
            nothing="It is in no pool.",
        ),
        Related("Its triggers", Trigger, _TRIGGER, by="worker", where=_LIVE, order=_NEWEST),
    )  # fmt: skip
    support = (
        SupportAction(
            "disable", "Disable the worker",
            "It finishes what it holds and gets nothing new; its queued runs wait until it is enabled again.",
            "The worker is disabled.",
            applies=lambda worker: worker.deleted_at is None and worker.disabled_at is None,
            perform=lambda worker, actor: update_worker(worker=worker, values={"disabled": True}, actor=actor),
        ),
        SupportAction(
            "enable", "Enable the worker", "It gets runs again, what has waited for it first.",
            "The worker is enabled.",
            applies=lambda worker: worker.deleted_at is None and worker.disabled_at is not None,
            perform=lambda worker, actor: update_worker(worker=worker, values={"disabled": False}, actor=actor),
        ),
        SupportAction(
            "approve", "Approve the worker",
            "A key's token registered it. From now on it is handed runs with the MCP headers of their triggers, in"
            " plaintext: be sure whose machine it is.",
            "The worker is approved.",
            applies=lambda worker: (worker.deleted_at is None and worker.unapproved_since is not None),
            perform=lambda worker, actor: approve_worker(worker=worker, actor=actor), is_harsh=True,
        ),
        SupportAction(
            "lift-limit", "Lift the usage limit",
            "It gets runs again at once, as if its account's limit were over. Other workers of the same account stay"
            " limited. If the account has nothing left, its next run fails and limits it anew.",
            "The worker's usage limit is lifted.",
            applies=lambda worker: worker.deleted_at is None and _is_limited(worker),
            perform=lambda worker, actor: update_worker(worker=worker, values={"limited_until": None}, actor=actor),
        ),
        SupportAction(
            "revoke-token", "Revoke the token",
            "Its wkt_ token is dead at once. Runs in its hands are lost by their leases and retried; it must register"
            " again with a new wrk_ key.",
            "The worker's token is revoked.", applies=lambda worker: worker.has_token_digest,
            perform=lambda worker, actor: revoke_token(worker=worker, actor=actor), is_harsh=True,
        ),
    )  # fmt: skip


@register(Pool, site=site)
class PoolAdmin(StaffModelAdmin):
    icon = "hub"
    group = "Machines"
    is_shortcut = True
    when_empty = "Nobody has made a pool yet."
    named_by = "name"
    columns = ("name", "State", "environment", "created_at")
    list_filter = ("environment",)
    searched_text = {"name": "name", **BY_PLACE}
    searched_address = BY_MEMBER
    looks_through = LOOKS_THROUGH_CUSTOMERS
    scopes = (Scope(("environment",), ("id",)),)
    facts = (
        ("State", state_of("active", deleted="deleted_at")), "name", "environment",
        ("Workers", of_row(lambda pool: number(pool.counts["total"]))),
        ("Online", of_row(lambda pool: number(pool.counts["online"]))),
        ("Online with room", of_row(lambda pool: number(pool.counts["free"]))), "created_at", "deleted_at", "id",
        ("Key in files", "key"), ("Managed by the files", "managed_by"), "description",
    )  # fmt: skip
    panels = (
        Related(
            "Its workers", PoolMember,
            (
                "worker",
                (
                    "State",
                    of_row(
                        lambda member: state(_worker_state(member.worker)),
                        *(f"worker__{name}" for name in _STATE_READS),
                    ),
                ),
                "worker__limited_until", "worker__last_seen_at", ("In the pool since", "created_at"),
            ),
            by="pool", order=("worker_id",), nothing="It has no workers.",
            more=lambda pool: list_of(Worker, environment=pool.environment_id),
        ),
        Related("Its triggers", Trigger, _TRIGGER, by="pool", where=_LIVE, order=_NEWEST),
    )  # fmt: skip

    def find(self, row_id: UUID) -> Model | None:
        pool = super().find(row_id)
        if pool is not None:
            vars(pool)["counts"] = with_workers([{"id": pool.pk}])[0]["workers"]
        return pool


_ONLINE = f"""
SELECT count(*) AS live, count(*) FILTER (WHERE {is_online("w", "statement_timestamp()")}) AS online
FROM worker w WHERE w.deleted_at IS NULL
"""  # noqa: S608


def _figures() -> list[Figure]:
    row = fetch_row(_ONLINE, {})
    return [
        Figure("Workers online", f"{row['online']:,}", f"of {row['live']:,}", href=list_of(Worker))
    ]


show_figures(_figures)


def _with_host(term: str) -> QuerySet[Worker, Any]:
    return Worker.objects.filter(hostname__icontains=term).values("environment")


also_find_by(Environment, "host name", lambda term: Q(id__in=_with_host(term)))
also_find_by(Membership, "host name", lambda term: Q(environment__in=_with_host(term)))
