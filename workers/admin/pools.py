"""Django admin's pages of pools."""

from typing import Any

from django.contrib.admin import display, register
from django.db.models import Q

from pipedai.admin.base import StaffModelAdmin
from pipedai.admin.change_list import LOOKS_THROUGH_CUSTOMERS, Scope
from pipedai.admin.filters import related
from pipedai.admin.panels import Facts, Panel, Table
from pipedai.admin.site import site
from pipedai.admin.values import ident, link_to, list_of, moment, state, text
from workers.admin.triggers_panel import triggers_panel
from workers.admin.workers import shown_state
from workers.models import Pool, PoolMember, Worker
from workers.pools.queries import with_workers
from workspaces.admin.environments import where_member
from workspaces.models import Environment

_SHOWN = 50


@register(Pool, site=site)
class PoolAdmin(StaffModelAdmin):
    """Shows staff the pools of all environments."""

    icon = "hub"
    is_shortcut = True
    when_empty = "Nobody has made a pool yet."
    list_display = ("name", "shown_state", "in_environment", "created")
    list_filter = (related("environment", Environment),)
    list_reads = ("id", "name", "created_at", "deleted_at", "environment__name")
    list_select_related = ("environment",)
    searched_text = {
        "name": "name",
        "environment__name": "environment",
        "environment__workspace__name": "workspace",
    }
    searched_address = "member's e-mail address"
    looks_through = LOOKS_THROUGH_CUSTOMERS
    scopes = (Scope(("environment",), ("id",)),)
    story_joins = ("environment",)

    def found_by_address(self, address: str) -> Q | None:
        """Returns the condition for the pools of all environments of which the user with this address is a member."""
        return where_member(address, "environment")

    @display(description="State")
    def shown_state(self, pool: Pool) -> Any:
        """Shows whether the pool is active or deleted."""
        return state("deleted" if pool.deleted_at else "active")

    @display(description="Environment")
    def in_environment(self, pool: Pool) -> Any:
        return link_to(Environment, pool.environment_id, pool.environment.name)

    @display(description="Created")
    def created(self, pool: Pool) -> Any:
        return moment(pool.created_at)

    def title_of(self, row: Pool) -> str:
        return row.name

    def story(self, row: Pool) -> list[Panel]:
        """Returns the page of one pool: its facts, its workers, and the triggers that point at it."""
        (counted,) = with_workers([{"id": row.id}])
        counts = counted["workers"]
        return [
            Facts(
                "Pool",
                [
                    ("State", self.shown_state(row)),
                    ("Name", row.name),
                    ("Environment", self.in_environment(row)),
                    ("Workers", f"{counts['total']:,}"),
                    ("Online", f"{counts['online']:,}"),
                    ("Online with room", f"{counts['free']:,}"),
                    ("Created", self.created(row)),
                    ("Deleted", moment(row.deleted_at)),
                    ("Id", ident(row.id)),
                    ("Description", text(row.description)),
                ],
            ),
            Table(
                "Its workers",
                ("Worker", "State", "Limited until", "Last seen", "In the pool since"),
                [
                    (
                        link_to(Worker, each.worker_id, each.worker.label),
                        shown_state(each.worker),
                        moment(each.worker.limited_until),
                        moment(each.worker.last_seen_at),
                        moment(each.created_at),
                    )
                    for each in PoolMember.objects.filter(pool=row)
                    .select_related("worker")
                    .only(
                        "created_at", "worker__label", "worker__disabled_at", "worker__deleted_at",
                        "worker__limited_until", "worker__last_seen_at",
                    )
                    .order_by("worker_id")[:_SHOWN]
                ],
                nothing="It has no workers.",
                more=list_of(Worker, environment=row.environment_id),
            ),
            triggers_panel(pool=row.id),
        ]  # fmt: skip
