"""Django admin's pages of enrollments."""

from typing import Any

from django.contrib.admin import display, register
from django.utils import timezone

from accounts.models import User
from pipedai.admin.base import StaffModelAdmin
from pipedai.admin.change_list import Scope
from pipedai.admin.filters import related
from pipedai.admin.panels import Facts, Panel
from pipedai.admin.site import site
from pipedai.admin.support import SupportAction
from pipedai.admin.values import ident, link_to, links, moment, page_of, state, text
from workers.enrollment.issuing import revoke_enrollment
from workers.models import Enrollment, Pool, Worker
from workspaces.models import Environment


def _state(enrollment: Enrollment) -> str:
    if enrollment.consumed_at:
        return "consumed"
    if enrollment.revoked_at:
        is_code = enrollment.kind == Enrollment.Kind.CODE or enrollment.approved_at
        return "revoked" if is_code else "denied"
    # The service decides by the database's clock whether an enrollment has expired. This page only shows it to staff,
    # so the clock of the web process is exact enough.
    if enrollment.expires_at <= timezone.now():
        return "expired"
    return "active" if enrollment.approved_at else "pending"


@register(Enrollment, site=site)
class EnrollmentAdmin(StaffModelAdmin):
    """Shows staff the enrollments: the codes that admins issued and the pairings that hosts asked for."""

    icon = "add_link"
    when_empty = "No host has asked to be let in yet, and nobody has issued a code for one."
    list_display = (
        "shown_id",
        "kind",
        "named",
        "shown_state",
        "in_environment",
        "asked",
        "created",
    )
    list_display_links = None
    list_filter = ("kind", related("environment", Environment), related("worker", Worker))
    list_reads = (
        "id", "kind", "label", "created_at", "expires_at", "approved_at", "revoked_at", "consumed_at", "asked_from",
        "environment__name",
    )  # fmt: skip
    list_select_related = ("environment",)
    searched_text = {"label": "label"}
    scopes = (Scope(("environment",), ("created_at", "id")),)
    story_joins = ("environment", "decided_by", "worker")
    never_read = (
        "code_digest", "user_code_digest", "decided_by__password", "worker__token_digest",
        "worker__account_id",
    )  # fmt: skip
    support = (
        SupportAction(
            "revoke",
            "Revoke the enrollment",
            "Nobody can redeem it any more.",
            "The enrollment is revoked.",
            applies=lambda enrollment: _state(enrollment) == "active",
            perform=lambda enrollment, actor: revoke_enrollment(
                environment_id=enrollment.environment_id, enrollment_id=enrollment.id, actor=actor
            ),
            is_harsh=True,
        ),
    )

    @display(description="Enrollment")
    def shown_id(self, enrollment: Enrollment) -> Any:
        return link_to(Enrollment, enrollment.id)

    @display(description="Label (unverified)")
    def named(self, enrollment: Enrollment) -> Any:
        """Returns the enrollment's label. It was chosen by the admin who issued the code, or by the host that asked for
        the pairing.
        """
        return text(enrollment.label)

    @display(description="State")
    def shown_state(self, enrollment: Enrollment) -> Any:
        """Returns `active` if a host can still redeem the enrollment, else a word for why not, such as `expired`."""
        return state(_state(enrollment))

    @display(description="Environment")
    def in_environment(self, enrollment: Enrollment) -> Any:
        """Returns a link to the environment in which the host gets its worker; empty for a pairing not yet approved."""
        if enrollment.environment is None:
            return text(None)
        return link_to(Environment, enrollment.environment_id, enrollment.environment.name)

    @display(description="Asked from")
    def asked(self, enrollment: Enrollment) -> Any:
        """Returns the IP address of the host that asked for the pairing; empty for a code that an admin issued."""
        return text(enrollment.asked_from)

    @display(description="Created")
    def created(self, enrollment: Enrollment) -> Any:
        return moment(enrollment.created_at)

    def story(self, row: Enrollment) -> list[Panel]:
        """Returns the page of one enrollment: all its columns but the digests of its codes."""
        decider = row.decided_by and link_to(User, row.decided_by_id, row.decided_by.email)
        worker = row.worker and link_to(Worker, row.worker_id, row.worker.label)
        pools = Pool.objects.filter(id__in=row.pool_ids or ()).order_by("name", "id")
        return [
            Facts(
                "Enrollment",
                [
                    ("State", self.shown_state(row)),
                    ("Kind", row.kind),
                    ("Label (unverified)", self.named(row)),
                    ("Environment", self.in_environment(row)),
                    ("Pays by", row.auth_mode),
                    ("Joins pools", links((pool.name, page_of(Pool, pool.id)) for pool in pools)),
                    ("Asked from", self.asked(row)),
                    ("Program", text(row.asked_by)),
                    ("Issued, approved or denied by", decider or text(None)),
                    ("Created", self.created(row)),
                    ("Approved", moment(row.approved_at)),
                    ("Expires", moment(row.expires_at)),
                    ("Revoked or denied", moment(row.revoked_at)),
                    ("Redeemed", moment(row.consumed_at)),
                    ("Its worker", worker or text(None)),
                    ("Id", ident(row.id)),
                ],
            )
        ]
