"""The admin pages of workers, pools and enrollments."""

from django.contrib.admin import register
from django.http import HttpRequest
from django.utils import timezone

from pipedai.admin.base import OF_CUSTOMERS, StaffModelAdmin
from pipedai.admin.columns import Panel, newest
from pipedai.admin.site import site
from pipedai.admin.support import SupportAction
from workers.enrollment.issuing import revoke_enrollment
from workers.models import ONLINE_WITHIN, Enrollment, Pool, PoolMember, Worker
from workers.pools.queries import with_workers
from workers.services import approve_worker, revoke_token, update_worker
from workspaces.admin import BY_PLACE

# The services decide by the database's clock what is online, limited or expired. These pages only show it, so the clock
# of the web process is exact enough.


@register(Enrollment, site=site)
class EnrollmentAdmin(StaffModelAdmin):
    """Nobody has verified a label: the admin who issued the code chose it, or the host that asked for the pairing."""

    list_display = ("id", "kind", "label", "state", "environment", "asked_from", "created_at")
    list_filter = ("kind", "environment", "worker")
    search_fields = ("label",)
    indexes = {("environment",): "created_at"}
    reads = ("consumed_at", "revoked_at", "approved_at", "expires_at")
    support = (
        SupportAction(
            "revoke", "Revoke the enrollment", "Nobody can redeem it any more.", "The enrollment is revoked.",
            applies=lambda enrollment: enrollment_state(enrollment) == "active",
            perform=lambda enrollment, actor: revoke_enrollment(
                environment_id=enrollment.environment_id, enrollment_id=enrollment.id, actor=actor
            ),
        ),
    )  # fmt: skip

    def state(self, enrollment: Enrollment) -> str:
        return enrollment_state(enrollment)


def enrollment_state(enrollment: Enrollment) -> str:
    if enrollment.consumed_at:
        return "consumed"
    if enrollment.revoked_at:
        is_code = enrollment.kind == Enrollment.Kind.CODE or enrollment.approved_at
        return "revoked" if is_code else "denied"
    if enrollment.expires_at <= timezone.now():
        return "expired"
    return "active" if enrollment.approved_at else "pending"


def worker_state(worker: Worker) -> str:
    if worker.deleted_at:
        return "deregistered"
    if worker.disabled_at:
        return "disabled"
    seen = worker.last_seen_at
    is_here = seen and seen > timezone.now() - ONLINE_WITHIN and not worker.signed_off_at
    return "online" if is_here else "offline"


_STATE_READS = ("deleted_at", "disabled_at", "last_seen_at", "signed_off_at")


def _is_limited(worker: Worker) -> bool:
    return worker.limited_until is not None and worker.limited_until > timezone.now()


@register(Worker, site=site)
class WorkerAdmin(StaffModelAdmin):
    named_by = "label"
    list_display = (
        "label",
        "hostname",
        "state",
        "environment",
        "version",
        "last_seen_at",
        "created_at",
    )
    list_filter = ("environment",)
    search_fields = ("label", "hostname", *BY_PLACE)
    looks_through = OF_CUSTOMERS
    indexes = {("environment",): "created_at"}
    # Nobody is shown the word for the account.
    hidden = ("account_id",)
    reads = _STATE_READS
    panels = (
        newest("Its pools", PoolMember, ("pool", "created_at"), by="worker", order=("pool_id",)),
    )
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
            applies=lambda worker: worker.deleted_at is None and worker.unapproved_since is not None,
            perform=lambda worker, actor: approve_worker(worker=worker, actor=actor),
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
            perform=lambda worker, actor: revoke_token(worker=worker, actor=actor),
        ),
    )  # fmt: skip

    def state(self, worker: Worker) -> str:
        return worker_state(worker)


def _workers_of(pool: Pool, _: HttpRequest) -> Panel:
    counts = with_workers([{"id": pool.pk}])[0]["workers"]
    names = (("Workers", "total"), ("Online", "online"), ("Online with room", "free"))
    return Panel("Its workers", facts=[(label, counts[name]) for label, name in names])


@register(Pool, site=site)
class PoolAdmin(StaffModelAdmin):
    named_by = "name"
    list_display = ("name", "environment", "created_at", "deleted_at")
    list_filter = ("environment",)
    search_fields = ("name", *BY_PLACE)
    looks_through = OF_CUSTOMERS
    indexes = {("environment",): "id"}
    panels = (
        _workers_of,
        newest(
            "Members", PoolMember,
            (
                "worker",
                ("State", lambda member: worker_state(member.worker), [f"worker__{name}" for name in _STATE_READS]),
                "worker__limited_until", "worker__last_seen_at", "created_at",
            ),
            by="pool", order=("worker_id",),
        ),
    )  # fmt: skip
