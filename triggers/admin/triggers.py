"""The admin pages of triggers and their revisions."""

from collections.abc import Mapping
from typing import Any

from django.contrib.admin import display, register
from django.db.models import F, OuterRef, Q, QuerySet, Subquery
from django.http import HttpRequest

from pipedai.admin.base import StaffModelAdmin
from pipedai.admin.change_list import LOOKS_THROUGH_CUSTOMERS, Scope
from pipedai.admin.filters import related
from pipedai.admin.panels import Facts, Links, Panel, Table
from pipedai.admin.site import site
from pipedai.admin.support import SupportAction
from pipedai.admin.values import (
    data,
    ident,
    in_both_zones,
    link_to,
    list_of,
    long_text,
    moment,
    money,
    number,
    state,
    text,
    url,
    yes,
    zone_of,
)
from triggers.admin.explanations import Pool, Worker, trigger_panel
from triggers.admin.moving import MoveForm, move
from triggers.admin.tick_table import newest_ticks
from triggers.models import Delivery, Run, Trigger, TriggerRevision
from triggers.queries import HEALTH
from workspaces.admin.environments import where_member
from workspaces.models import Environment

_SHOWN = 10


@register(Trigger, site=site)
class TriggerAdmin(StaffModelAdmin):
    """Shows the triggers of all workspaces."""

    icon = "bolt"
    is_shortcut = True
    when_empty = "Nobody has made a trigger yet."
    list_display = (
        "name",
        "shown_state",
        "schedule",
        "next_run",
        "last_run",
        "in_environment",
        "on_worker",
        "in_pool",
        "created",
    )
    list_filter = (
        "enabled",
        related("environment", Environment),
        related("worker", Worker),
        related("pool", Pool),
    )
    list_reads = (
        "id", "name", "enabled", "schedule", "next_run_at", "created_at", "deleted_at", "worker__label",
        "pool__name", "environment__name",
    )  # fmt: skip
    list_select_related = ("worker", "pool", "environment")
    searched_text = {
        "name": "name",
        "environment__name": "environment",
        "environment__workspace__name": "workspace",
    }
    searched_address = "member's e-mail address"
    looks_through = LOOKS_THROUGH_CUSTOMERS
    scopes = (Scope(("environment",), ("id",)),)
    story_joins = ("worker", "pool", "environment", "revision")
    never_read = ("mcp_headers", "webhook_secret", "worker__token_digest", "worker__account_id")
    support = (
        SupportAction(
            "move",
            "Move the trigger",
            "Its runs go to another worker or pool of the environment from now on, also those that are queued. What a"
            " worker holds, it finishes. Whoever gets a run is handed the MCP headers in plaintext: be sure whose"
            " machine it is.",
            "The trigger is moved.",
            applies=lambda trigger: trigger.deleted_at is None,
            perform=move,
            form=MoveForm,
        ),
    )

    def found_by_address(self, address: str) -> Q | None:
        """Returns the condition for the triggers of all environments of which a user with this address is a member."""
        return where_member(address, "environment")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Returns the list's rows, each with the id and the state of its newest run."""
        runs = Run.objects.filter(trigger=OuterRef("pk")).order_by("-queued_at", "-id")
        rows: QuerySet[Any] = (
            super()
            .get_queryset(request)
            .annotate(
                newest_run_id=Subquery(runs.values("id")[:1]),
                newest_run_status=Subquery(runs.values("status")[:1]),
            )
        )
        return rows

    @display(description="State")
    def shown_state(self, trigger: Trigger) -> Any:
        """Shows whether the trigger is active, disabled or deleted."""
        if trigger.deleted_at:
            return state("deleted")
        return state("active" if trigger.enabled else "disabled")

    @display(description="Due next")
    def next_run(self, trigger: Trigger) -> Any:
        return moment(trigger.next_run_at)

    @display(description="Newest run")
    def last_run(self, trigger: Any) -> Any:
        status = trigger.newest_run_status
        return link_to(Run, trigger.newest_run_id, status and state(status))

    @display(description="Worker")
    def on_worker(self, trigger: Trigger) -> Any:
        return link_to(Worker, trigger.worker_id, trigger.worker and trigger.worker.label)

    @display(description="Pool")
    def in_pool(self, trigger: Trigger) -> Any:
        return link_to(Pool, trigger.pool_id, trigger.pool and trigger.pool.name)

    @display(description="Environment")
    def in_environment(self, trigger: Trigger) -> Any:
        return link_to(Environment, trigger.environment_id, trigger.environment.name)

    @display(description="Created")
    def created(self, trigger: Trigger) -> Any:
        return moment(trigger.created_at)

    def title_of(self, row: Trigger) -> str:
        return row.name

    def story_rows(self) -> QuerySet[Any]:
        """Returns the query for one trigger. It reads whether the trigger has secrets, but not the secrets."""
        rows: QuerySet[Any] = (
            super()
            .story_rows()
            .annotate(
                has_mcp_headers=Q(mcp_headers__isnull=False),
                has_webhook_secret=Q(webhook_secret__isnull=False),
                health=HEALTH,
                failures=F("judged__failures"),
                late_since=F("judged__late_since"),
            )
        )
        return rows

    def story_asked(self, row: Any, sent: Mapping[str, str]) -> list[Panel]:
        """Returns the panels of one trigger. The first one says what became of the last due time, or of the one that
        the parameter `at` asks about.
        """
        return [trigger_panel(row, sent), *self.story(row)]

    def story(self, row: Any) -> list[Panel]:
        """Returns the panels of one trigger: its facts, its newest runs, its newest ticks and links to more."""
        zone = zone_of(row.timezone)
        return [
            Facts(
                "Trigger",
                [
                    ("State", self.shown_state(row)),
                    ("Name", row.name),
                    ("Environment", self.in_environment(row)),
                    ("Worker", self.on_worker(row)),
                    ("Pool", self.in_pool(row)),
                    ("Worker before the pool's others for", _seconds(row.prefer_seconds)),
                    ("Taken within", _seconds(row.start_deadline_seconds)),
                    ("Runs at once", number(row.max_concurrent_runs)),
                    ("Schedule", text(row.schedule)),
                    ("Time zone", row.timezone),
                    ("Due next", in_both_zones(row.next_run_at, zone)),
                    ("While a run is unfinished", f"{row.overlap_policy} the next"),
                    ("Retries", row.max_retries),
                    ("A retry", f"{row.retry_mode}s"),
                    ("Retries after effects", yes(row.retry_after_effects)),
                    ("Records events", yes(row.record_events)),
                    ("Time limit", f"{row.timeout_seconds:,} s"),
                    ("Cost limit", money(row.max_cost_usd)),
                    ("Health", state(row.health)),
                    ("Failures in a row", number(row.failures)),
                    ("Late since", moment(row.late_since)),
                    ("Failing after failures", number(row.alert_after_failures)),
                    ("Late without success after", _seconds(row.success_deadline_seconds)),
                    ("Model", text(row.revision.model)),
                    ("MCP server", url(row.mcp_url)),
                    ("MCP headers", yes(row.has_mcp_headers, "none")),
                    ("Webhook", url(row.webhook_url)),
                    ("Webhook secret", yes(row.has_webhook_secret, "none")),
                    ("Created", self.created(row)),
                    ("Changed", moment(row.updated_at)),
                    ("Deleted", moment(row.deleted_at)),
                    ("Id", ident(row.id)),
                    ("Description", text(row.description)),
                    ("Prompt", long_text(row.revision.prompt)),
                    ("Output schema", data(row.revision.output_schema)),
                ],
            ),
            Table(
                "Newest runs",
                ("Run", "State", "Source", "Queued", "Ended"),
                [
                    (
                        link_to(Run, run.id),
                        state(run.status),
                        run.source,
                        moment(run.queued_at),
                        moment(run.ended_at),
                    )
                    for run in Run.objects.filter(trigger=row)
                    .only("status", "source", "queued_at", "ended_at")
                    .order_by("-queued_at", "-id")[:_SHOWN]
                ],
                nothing="It has never run.",
                more=list_of(Run, trigger=row.id),
            ),
            newest_ticks(row),
            Links(
                "See also",
                [
                    ("Deliveries", list_of(Delivery, trigger=row.id)),
                    ("Former prompts", list_of(TriggerRevision, trigger=row.id)),
                ],
            ),
        ]


@register(TriggerRevision, site=site)
class TriggerRevisionAdmin(StaffModelAdmin):
    """The prompts, models and output schemas that triggers have or had."""

    icon = "history_edu"
    when_empty = "Nobody has made a trigger yet, so there is no revision of one."
    list_display = ("made", "of_trigger", "model", "in_environment")
    list_filter = (related("trigger", Trigger),)
    list_reads = ("id", "model", "created_at", "trigger__name", "environment__name")
    list_select_related = ("trigger", "environment")
    story_joins = ("trigger", "environment")
    never_read = ("trigger__mcp_headers", "trigger__webhook_secret")

    @display(description="Made")
    def made(self, revision: TriggerRevision) -> Any:
        return moment(revision.created_at)

    @display(description="Trigger")
    def of_trigger(self, revision: TriggerRevision) -> Any:
        return link_to(Trigger, revision.trigger_id, revision.trigger.name)

    @display(description="Environment")
    def in_environment(self, revision: TriggerRevision) -> Any:
        return link_to(Environment, revision.environment_id, revision.environment.name)

    def story(self, row: TriggerRevision) -> list[Panel]:
        return [
            Facts(
                "Revision",
                [
                    ("Trigger", self.of_trigger(row)),
                    ("Environment", self.in_environment(row)),
                    ("Made", self.made(row)),
                    ("Model", text(row.model)),
                    ("Id", ident(row.id)),
                    ("Prompt", long_text(row.prompt)),
                    ("Output schema", data(row.output_schema)),
                ],
            )
        ]


def _seconds(count: int | None) -> Any:
    return text(None if count is None else f"{count:,} s")
