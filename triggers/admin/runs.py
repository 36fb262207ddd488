"""The admin pages of runs: the list of all runs, and one page with all that is known of a run."""

from collections.abc import Mapping, Sequence
from datetime import tzinfo
from typing import Any

from django.contrib.admin import display, register
from django.db.models import F, Q, QuerySet
from django.http import HttpRequest

from pipedai.admin.base import StaffModelAdmin
from pipedai.admin.change_list import Scope
from pipedai.admin.filters import DatesFilter, OneOf, related
from pipedai.admin.panels import Facts, Panel, Table
from pipedai.admin.site import site
from pipedai.admin.support import SupportAction
from pipedai.admin.values import (
    data,
    ident,
    in_both_zones,
    link_to,
    long_text,
    moment,
    money,
    number,
    short_id,
    span,
    spoken,
    state,
    text,
    two_lines,
    url,
    zone_of,
)
from pipedai.sql import fetch_all
from triggers.admin.errors import beginning_of_error, shown_error
from triggers.admin.explanations import Pool, Worker, run_panels
from triggers.admin.run_events import events_panels, note_looking
from triggers.admin.tool_calls import counts, tool_calls_table
from triggers.models import Delivery, DeliveryAttempt, Run, Trigger
from triggers.runs.lifecycle import cancel_run
from triggers.runs.listing import Wanted, parts_of
from triggers.runs.queries import in_states
from triggers.states import TERMINAL, FaultClass, Source, Status
from workspaces.models import Environment

_SHOWN = 50
# The filters by which the runs of an environment, a trigger or a worker are found without reading others.
_WORDS: dict[str, list[str]] = {
    "status": Status.values,
    "source": Source.values,
    "fault_class": FaultClass.values,
}

# Follows `retry_of_id` from a run back to the earliest attempt that still exists, and from there forward to the latest.
_ATTEMPTS = """
WITH RECURSIVE up AS (
    SELECT id, retry_of_id, 0 AS steps FROM run WHERE id = %(id)s
    UNION ALL SELECT r.id, r.retry_of_id, up.steps + 1 FROM run r JOIN up ON r.id = up.retry_of_id),
down AS (
    (SELECT id FROM up ORDER BY steps DESC LIMIT 1)
    UNION ALL SELECT r.id FROM run r JOIN down ON r.retry_of_id = down.id)
SELECT r.id, r.attempt, r.status, r.fault_class, r.queued_at, r.ended_at, r.short_message
FROM down JOIN run r ON r.id = down.id ORDER BY r.attempt
"""


def _words(sent: Mapping[str, str]) -> dict[str, str]:
    """Returns the filters by state, source and fault class. A filter for runs without a fault class is none of them."""
    return {name: sent[name] for name, known in _WORDS.items() if sent.get(name) in known}


class StateFilter(OneOf):
    """Filters the list to the runs in one state."""

    title = "status"
    parameter_name = "status"
    words = Status.values

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        status = self.value()
        return in_states(queryset, [status]) if status else queryset


@register(Run, site=site)
class RunAdmin(StaffModelAdmin):
    """Shows the runs of all workspaces."""

    icon = "play_circle"
    is_shortcut = True
    when_empty = "No trigger has been fired yet, by a schedule or by hand."
    list_display = (
        "shown_id",
        "shown_state",
        "in_environment",
        "of_trigger",
        "on_worker",
        "queued",
        "ended_and_cost",
        "error",
    )
    list_display_links = None
    list_filter = (
        StateFilter,
        DatesFilter,
        "source",
        "fault_class",
        related("environment", Environment),
        related("trigger", Trigger),
        related("worker", Worker),
        related("pool", Pool),
    )
    list_reads = (
        "id", "status", "source", "attempt", "cost_usd", "queued_at", "ended_at", "fault_class", "short_message",
        "trigger__name", "worker__label", "environment__name",
    )  # fmt: skip
    list_select_related = ("trigger", "worker", "environment")
    scopes = (
        Scope(("environment",), ("queued_at", "id")),
        Scope(("trigger",), ("queued_at", "id")),
        Scope(("worker",), ("queued_at", "id")),
        Scope(("pool",), ("queued_at", "id")),
        Scope(("trigger", "worker"), ("queued_at", "id")),
        Scope(("trigger", "pool"), ("queued_at", "id")),
        Scope(("worker", "pool"), ("queued_at", "id")),
    )
    story_joins = ("trigger", "worker", "pool", "environment", "revision")
    never_read = (
        "trigger__mcp_headers", "trigger__webhook_secret", "worker__token_digest", "worker__account_id",
    )  # fmt: skip
    support = (
        SupportAction(
            "cancel",
            "Cancel the run",
            "A queued run ends at once. Of one in a worker's hands the cancel is requested; the worker stops"
            " it and says so. It is not retried.",
            "The run is canceled, or its worker has been asked to stop it.",
            applies=lambda run: run.status not in TERMINAL and run.cancel_requested_at is None,
            perform=lambda run, actor: cancel_run(run_id=run.id, actor=actor),
            is_harsh=True,
        ),
    )

    def scope_of(self, sent: Mapping[str, str]) -> Scope:
        """Returns the filters and the order for which an index must be able to find the runs of a filtered list.

        The runs of an environment, a trigger or a worker are found by state, source and fault class, too. Of all
        environments together only unfinished runs are found by their state.
        """
        scope = super().scope_of(sent)
        if scope.filters:
            return Scope((*scope.filters, *_words(sent)), scope.keys)
        if "status" in sent and sent["status"] not in TERMINAL:
            return Scope(("status",), scope.keys)
        return scope

    def parts_of(self, rows: QuerySet[Any], sent: Mapping[str, str]) -> Sequence[QuerySet[Any]]:
        """Returns the parts of a list that is filtered by state, source or fault class; see `triggers.runs.listing`."""
        scope = super().scope_of(sent)
        if not scope.filters:
            return [rows]
        words = _words(sent)
        statuses, sources, faults = ([words[name]] if name in words else [] for name in _WORDS)
        wanted = Wanted(
            statuses=statuses,
            sources=sources,
            faults=faults,
            of_pair=len(scope.filters) > 1,
            of_pool="pool" in scope.filters,
        )
        return parts_of(rows, wanted)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Returns the list's rows, each with the beginning of its error message."""
        begins = beginning_of_error()
        rows: QuerySet[Any] = super().get_queryset(request).annotate(error_begins=begins)
        return rows

    @display(description="Run")
    def shown_id(self, run: Run) -> Any:
        return link_to(Run, run.id)

    @display(description="State")
    def shown_state(self, run: Run) -> Any:
        """Shows the run's state, and below it why the run exists, and for a retry which attempt it is."""
        made_by = run.source if run.attempt == 1 else f"{run.source}, attempt {run.attempt}"
        return two_lines(state(run.status), made_by)

    @display(description="Trigger")
    def of_trigger(self, run: Run) -> Any:
        return link_to(Trigger, run.trigger_id, run.trigger.name)

    @display(description="Environment")
    def in_environment(self, run: Run) -> Any:
        return link_to(Environment, run.environment_id, run.environment.name)

    @display(description="Worker")
    def on_worker(self, run: Run) -> Any:
        return link_to(Worker, run.worker_id, run.worker and run.worker.label)

    @display(description="Error")
    def error(self, run: Any) -> Any:
        return shown_error(run, run.error_begins)

    @display(description="Queued")
    def queued(self, run: Run) -> Any:
        return moment(run.queued_at)

    @display(description="Ended, cost")
    def ended_and_cost(self, run: Run) -> Any:
        return two_lines(moment(run.ended_at), run.cost_usd and money(run.cost_usd))

    def story_rows(self) -> QuerySet[Any]:
        """Returns the query for one run, with its long texts."""
        rows: QuerySet[Any] = (
            super()
            .story_rows()
            .annotate(
                said=F("text__error_message"),
                handed_payload=F("text__payload"),
                handed_url=F("text__mcp_url"),
                came_late=F("text__late_result"),
                put_out=F("result__output"),
                has_output=Q(result__output__isnull=False),
                listed_calls=F("result__tool_calls"),
            )
        )
        return rows

    def looked_at(self, row: Any, request: HttpRequest) -> None:
        """Writes an audit row if staff ask for the run's events."""
        note_looking(row, request)

    def story_asked(self, row: Any, sent: Mapping[str, str]) -> list[Panel]:
        """Returns the panels of one run, with its events if they are asked for."""
        return [*self.story(row), *events_panels(row, sent)]

    def story(self, row: Any) -> list[Panel]:
        """Returns the panels of one run: the explanation of its state, its facts, timeline, attempts, tool calls and
        deliveries.
        """
        deliveries = list(
            Delivery.objects.filter(run=row)
            .only(
                "status", "host", "attempt_count", "created_at", "next_attempt_at", "delivered_at"
            )
            .order_by("id")[:_SHOWN]
        )
        attempts = fetch_all(_ATTEMPTS, {"id": row.id})
        zone = zone_of(row.trigger.timezone)
        return [
            *run_panels(row),
            Facts("Run", _facts(row)),
            Table("Timeline", ("When", "What", "After"), _timeline(row, zone)),
            Table(
                "Attempts",
                ("Attempt", "Run", "State", "Fault", "Queued", "Ended", "Message"),
                [
                    (
                        each["attempt"],
                        short_id(row.id) if each["id"] == row.id else link_to(Run, each["id"]),
                        state(each["status"]),
                        text(each["fault_class"]),
                        moment(each["queued_at"]),
                        moment(each["ended_at"]),
                        text(each["short_message"]),
                    )
                    for each in attempts
                ],
            ),
            tool_calls_table(row.listed_calls),
            Table(
                "Deliveries",
                ("Delivery", "State", "Host", "Attempts", "Queued", "Next attempt", "Delivered"),
                [
                    (
                        link_to(Delivery, each.id),
                        state(each.status),
                        each.host,
                        each.attempt_count,
                        moment(each.created_at),
                        moment(each.next_attempt_at),
                        moment(each.delivered_at),
                    )
                    for each in deliveries
                ],
                nothing="No webhook was asked for.",
            ),
            *_sendings(deliveries),
        ]


def attempts_table(deliveries: list[Delivery], title: str) -> Table:
    """Returns a table of the attempts to send these webhook deliveries. It takes one query."""
    attempts = DeliveryAttempt.objects.filter(delivery_id__in=[each.id for each in deliveries])
    return Table(
        title,
        ("Attempt", "When", "Answer", "Took", "Error", "Response"),
        [
            (
                each.n,
                moment(each.at),
                text(str(each.status_code or "")),
                f"{each.duration_ms:,} ms",
                text(each.error),
                long_text(each.response_body),
            )
            for each in attempts.order_by("at")[:_SHOWN]
        ],
        nothing="Not sent yet.",
    )


def _sendings(deliveries: list[Delivery]) -> list[Panel]:
    return [attempts_table(deliveries, "Sent")] if deliveries else []


def _facts(run: Any) -> list[tuple[str, Any]]:
    took = run.ended_at - run.started_at if run.ended_at and run.started_at else None
    return [
        ("State", state(run.status)),
        ("Trigger", link_to(Trigger, run.trigger_id, run.trigger.name)),
        ("Environment", link_to(Environment, run.environment_id, run.environment.name)),
        ("Worker", link_to(Worker, run.worker_id, run.worker and run.worker.label)),
        ("Pool", link_to(Pool, run.pool_id, run.pool and run.pool.name)),
        ("Source", run.source),
        ("Rerun of", link_to(Run, run.rerun_of_id)),
        ("Attempt", f"{run.attempt} of at most {run.max_retries + 1}"),
        ("Exit code", number(run.exit_code)),
        ("Took", span(took)),
        ("Time limit", f"{run.timeout_seconds:,} s"),
        ("Cost", money(run.cost_usd)),
        ("Model", text(run.model or run.revision.model)),
        ("Turns", number(run.num_turns)),
        ("Input tokens", number(run.input_tokens)),
        ("Output tokens", number(run.output_tokens)),
        ("Tokens read from the cache", number(run.cache_read_tokens)),
        ("Tokens written to the cache", number(run.cache_creation_tokens)),
        ("Tool calls", counts(run)),
        ("Session", text(run.session_id)),
        ("MCP server", url(run.handed_url or run.trigger.mcp_url)),
        ("Id", ident(run.id)),
        ("Message", text(run.short_message)),
        ("Error", long_text(run.said)),
        ("Output", "null" if run.has_output and run.put_out is None else data(run.put_out)),
        ("Late result", data(run.came_late)),
        ("Payload", data(run.handed_payload)),
        ("Prompt", long_text(run.revision.prompt)),
    ]


def _timeline(run: Run, zone: tzinfo) -> list[tuple[Any, ...]]:
    """Returns the rows of a run's timeline: when it was queued, claimed, started and ended, each with the time since
    the row before. The times are in UTC and in this zone.
    """
    ended = f"Ended: {spoken(run.status)}" + (
        f", by {spoken(run.ended_by)}" if run.ended_by else ""
    )
    moments = [
        (run.scheduled_for, "Scheduled for"),
        (run.queued_at, "Queued"),
        (run.available_at if run.available_at != run.queued_at else None, "Due"),
        (run.pool_from if run.worker_id and run.claimed_at is None else None, "Pool may take it"),
        (run.start_deadline_at if run.claimed_at is None else None, "Start deadline"),
        (run.claimed_at, "Claimed"),
        (run.started_at, "Started"),
        (run.cancel_requested_at, "Cancel requested"),
        (run.ended_at, ended),
        (run.lease_expires_at, "Lease ends"),
        (run.deadline_at, "Deadline"),
    ]
    known = sorted(((at, what) for at, what in moments if at is not None), key=lambda each: each[0])
    rows: list[tuple[Any, ...]] = []
    last = None
    for at, what in known:
        rows.append((in_both_zones(at, zone), what, span(at - last) if last else ""))
        last = at
    return rows
