"""The admin pages of workers, pools and enrollments."""

from django.contrib.admin import register
from django.utils import timezone

from pipedai.admin.base import OF_CUSTOMERS, StaffModelAdmin, SupportAction
from pipedai.admin.columns import newest
from pipedai.admin.site import site
from workers.enrollment.issuing import revoke_enrollment
from workers.models import ONLINE_WITHIN, Enrollment, Pool, PoolMember, Worker
from workers.services import approve_worker, revoke_token, update_worker
from workspaces.admin import BY_MEMBER, BY_PLACE

# The services decide by the database's clock what is online, limited or expired. These pages only display it, so the
# clock of the web process is exact enough here.


def _can_be_revoked(enrollment: Enrollment) -> bool:
    is_open = enrollment.consumed_at is None and enrollment.revoked_at is None
    return is_open and enrollment.approved_at is not None and enrollment.expires_at > timezone.now()


@register(Enrollment, site=site)
class EnrollmentAdmin(StaffModelAdmin):
    """A label is unverified: the admin who issued the code chose it, or the host that asked for the pairing."""

    list_display = (
        "id", "kind", "label", "environment", "asked_from", "created_at", "approved_at", "expires_at", "revoked_at",
        "consumed_at",
    )  # fmt: skip
    search_fields = ("label",)
    support = {
        "revoke": SupportAction(
            "Revoke the enrollment", "Nobody can redeem it any more.",
            lambda enrollment, actor: revoke_enrollment(
                environment_id=enrollment.environment_id, enrollment_id=enrollment.id, actor=actor
            ),
            _can_be_revoked,
        ),
    }  # fmt: skip


def worker_state(worker: Worker) -> str:
    if worker.deleted_at or worker.disabled_at:
        return "deregistered" if worker.deleted_at else "paused"
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
    search_fields = ("label", "hostname", *BY_PLACE)
    found_by_user = BY_MEMBER
    looks_through = OF_CUSTOMERS
    # The account is shown to nobody, not even to staff.
    hidden = ("account_id",)
    reads = _STATE_READS
    panels = (
        newest("Its pools", PoolMember, ("pool", "created_at"), by="worker", order=("pool_id",)),
    )
    support = {
        "disable": SupportAction(
            "Pause the worker",
            "It finishes what it holds and gets nothing new; its queued runs wait until it is resumed.",
            lambda worker, actor: update_worker(worker=worker, values={"disabled": True}, actor=actor),
            lambda worker: worker.deleted_at is None and worker.disabled_at is None,
        ),
        "enable": SupportAction(
            "Resume the worker", "It gets runs again, what has waited for it first.",
            lambda worker, actor: update_worker(worker=worker, values={"disabled": False}, actor=actor),
            lambda worker: worker.deleted_at is None and worker.disabled_at is not None,
        ),
        "approve": SupportAction(
            "Approve the worker",
            "A key's token registered it. From now on it is handed runs with the MCP headers of their triggers, in"
            " plaintext: be sure whose machine it is.",
            lambda worker, actor: approve_worker(worker=worker, actor=actor),
            lambda worker: worker.deleted_at is None and worker.unapproved_since is not None,
        ),
        "lift-limit": SupportAction(
            "Lift the usage limit",
            "It gets runs again at once, as if its account's limit were over. Other workers of the same account stay"
            " limited. If the account has nothing left, its next run fails and limits it anew.",
            lambda worker, actor: update_worker(worker=worker, values={"limited_until": None}, actor=actor),
            lambda worker: worker.deleted_at is None and _is_limited(worker),
        ),
        "revoke-token": SupportAction(
            "Revoke the token",
            "Its wkt_ token is dead at once. Runs in its hands are lost by their leases and retried; it must register"
            " again with a new wrk_ key.",
            lambda worker, actor: revoke_token(worker=worker, actor=actor), lambda worker: worker.has_token_digest,
        ),
    }  # fmt: skip

    def state(self, worker: Worker) -> str:
        return worker_state(worker)


_STATE = (
    "State",
    lambda member: worker_state(member.worker),
    [f"worker__{name}" for name in _STATE_READS],
)


@register(Pool, site=site)
class PoolAdmin(StaffModelAdmin):
    named_by = "name"
    list_display = ("name", "environment", "created_at", "deleted_at")
    search_fields = ("name", *BY_PLACE)
    found_by_user = BY_MEMBER
    looks_through = OF_CUSTOMERS
    panels = (
        newest(
            "Members", PoolMember, ("worker", _STATE, "created_at"), by="pool", order=("worker_id",)
        ),
    )
