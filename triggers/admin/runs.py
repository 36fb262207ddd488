"""The admin pages of runs, with all that is known of each, and of the webhook deliveries about them."""

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from django.contrib.admin import register
from django.db.models import OuterRef, Q, QuerySet, Subquery
from django.http import HttpRequest

from pipedai.admin.base import StaffModelAdmin
from pipedai.admin.change_list import Scope
from pipedai.admin.fields import column, itself, of_row, value_of
from pipedai.admin.filters import DatesFilter, OneOf
from pipedai.admin.panels import Related, attempts
from pipedai.admin.site import site
from pipedai.admin.support import SupportAction
from pipedai.admin.values import (
    data,
    excerpt,
    ident,
    long_text,
    moment,
    money,
    seconds,
    span,
    state,
    text,
    two_lines,
    url,
)
from pipedai.api.renderers import counted
from triggers.admin.panels import (
    MOMENTS,
    beginning_of_error,
    chain,
    events,
    run_panels,
    shown_error,
    timeline,
    tool_calls,
)
from triggers.models import Delivery, DeliveryAttempt, Run
from triggers.models.run import duration_ms
from triggers.runs.lifecycle import cancel_run
from triggers.runs.listing import Wanted, parts_of
from triggers.runs.queries import failures, in_states
from triggers.states import TERMINAL, FaultClass, Source, Status
from triggers.webhooks.outbox import redeliver

# The filters by which the runs of an environment, a trigger or a worker are found without reading others.
_WORDS = {"status": Status.values, "source": Source.values, "fault_class": FaultClass.values}


def _words(sent: Mapping[str, str]) -> dict[str, str]:
    return {name: sent[name] for name, known in _WORDS.items() if sent.get(name) in known}


# The word for all runs that failed or timed out.
_FAILURES = "failures"


class StateFilter(OneOf):
    """Filters the list to the runs in one state, or to all failures."""

    title = "status"
    parameter_name = "status"
    words = (*Status.values, _FAILURES)

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        status = self.value()
        if status == _FAILURES:
            return failures(queryset)
        return in_states(queryset, [status]) if status else queryset


def _run_state(run: Run) -> Any:
    made_by = run.source if run.attempt == 1 else f"{run.source}, attempt {run.attempt}"
    return two_lines(state(run.status), made_by)


def _ended(run: Run) -> Any:
    return two_lines(moment(run.ended_at), run.cost_usd and money(run.cost_usd))


def _mcp_server(run: Run) -> Any:
    return url(value_of(run, "text__mcp_url") or run.trigger.mcp_url)


def _took(run: Run) -> Any:
    duration = duration_ms(vars(run))
    return span(None if duration is None else timedelta(milliseconds=duration))


def _tool_calls(run: Run) -> Any:
    if run.tool_calls_total is None:
        return text(None)
    return (
        f"{run.tool_calls_total:,}, of these {run.tool_calls_effects:,} with a possible effect"
        f" and {run.tool_calls_unknown:,} without an answer"
    )


def _denied(run: Run) -> Any:
    if run.denials_total is None:
        return text(None)
    return f"{counted(run.denials_total, 'call')}: {', '.join(run.denied_tools or ())}"


def _output(run: Any) -> Any:
    """Shows the output. An output that is null is another thing than none."""
    output = value_of(run, "result__output")
    return "null" if run.has_output and output is None else data(output)


@register(Run, site=site)
class RunAdmin(StaffModelAdmin):
    icon = "play_circle"
    group = "Runs"
    is_shortcut = True
    when_empty = "No trigger has been fired yet, by a schedule or by hand."
    columns = (
        ("Run", itself()), ("State", of_row(_run_state, "status", "source", "attempt")), "environment", "trigger",
        "worker", "queued_at",
        ("Ended, cost", of_row(_ended, "ended_at", "cost_usd")),
        ("Error", of_row(shown_error, "fault_class", "short_message", error_begins=beginning_of_error())),
    )  # fmt: skip
    list_filter = (
        StateFilter, DatesFilter, "source", "fault_class", "environment", "trigger", "worker", "pool",
    )  # fmt: skip
    scopes = tuple(
        Scope(filters, ("queued_at", "id"))
        for filters in (
            ("environment",), ("trigger",), ("worker",), ("pool",),
            ("trigger", "worker"), ("trigger", "pool"), ("worker", "pool"),
        )
    )  # fmt: skip
    facts = (
        ("State", column("status", state)), "trigger", "environment", "worker", "pool", "source", "rerun_of",
        ("Attempt", of_row(lambda run: f"{run.attempt} of at most {run.max_retries + 1}", "attempt", "max_retries")),
        ("Event", "event_id"), "exit_code", ("Took", of_row(_took, "started_at", "ended_at", "active_ms")),
        ("Time limit", column("timeout_seconds", seconds)), ("Cost", "cost_usd"),
        ("Model", of_row(lambda run: text(run.model or run.revision.model), "model", "revision__model")),
        ("Turns", "num_turns"), "input_tokens", "output_tokens", ("Tokens read from the cache", "cache_read_tokens"),
        ("Tokens written to the cache", "cache_creation_tokens"),
        ("Tool calls", of_row(_tool_calls, "tool_calls_total", "tool_calls_effects", "tool_calls_unknown")),
        ("Denied", of_row(_denied, "denials_total", "denied_tools")), ("Times that it waited", "spells"),
        ("Session", "session_id"),
        ("MCP server", of_row(_mcp_server, "text__mcp_url", "trigger__mcp_url")),
        "id", ("Message", "short_message"),
        ("Output", of_row(_output, "result__output", has_output=Q(result__output__isnull=False))),
        "text__late_result", "text__payload", ("Prompt", column("revision__prompt", long_text)),
    )  # fmt: skip
    # The panels explain most of these columns. The others matter only to the service itself.
    left_out = (
        "retry_of", "avoided_worker", "retried", "resume_until", "had_effects", "at_limit", "limit_retries", "slot",
        "trigger_slot", "claim_id", "chain_depth", "earlier_calls", "requested_by", "also_requested_by",
    )  # fmt: skip
    answers = (run_panels,)
    panels = (
        timeline,
        chain,
        tool_calls,
        Related(
            "Deliveries", Delivery,
            (("Delivery", itself()), "State", "host", "Attempts", "Queued", "next_attempt_at", "delivered_at"),
            by="run", order=("id",), nothing="No webhook was asked for.",
        ),
        attempts(DeliveryAttempt, "delivery__run", title="Sent", order=("at",), nothing=""),
        events,
    )  # fmt: skip
    panels_read = (
        *MOMENTS, "ended_by", "fault_class", "trigger__timezone", "text__error_message", "result__tool_calls",
    )  # fmt: skip
    support = (
        SupportAction(
            "cancel", "Cancel the run",
            "A queued run ends at once. Of one in a worker's hands the cancel is requested; the worker stops"
            " it and says so. It is not retried.",
            "The run is canceled, or its worker has been asked to stop it.",
            applies=lambda run: run.status not in TERMINAL and run.cancel_requested_at is None,
            perform=lambda run, actor: cancel_run(run_id=run.id, actor=actor), is_harsh=True,
        ),
    )  # fmt: skip

    def scope_of(self, sent: Mapping[str, str]) -> Scope:
        """Returns the filters and the order that an index serves. In an environment, a trigger or a worker it finds
        runs by state, source and fault class; of all environments, only unfinished runs by state.
        """
        scope = super().scope_of(sent)
        if scope.filters:
            return Scope((*scope.filters, *_words(sent)), scope.keys)
        if sent.get("status") == _FAILURES:
            return Scope(("status",), ("ended_at", "id"))
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
        kind = {"of_pair": len(scope.filters) > 1, "of_pool": "pool" in scope.filters}
        return parts_of(rows, Wanted(statuses=statuses, sources=sources, faults=faults, **kind))


def _delivery_state(delivery: Delivery) -> Any:
    return two_lines(state(delivery.status), counted(delivery.attempt_count, "attempt"))


_ATTEMPTS = DeliveryAttempt.objects.filter(delivery=OuterRef("pk")).order_by("-n")
_LAST_ERROR = of_row(
    lambda delivery: excerpt(delivery.last_error),
    last_error=Subquery(_ATTEMPTS.values("error")[:1]),
)


@register(Delivery, site=site)
class DeliveryAdmin(StaffModelAdmin):
    icon = "outbox"
    group = "Webhooks and notices"
    when_empty = (
        "No webhook was to be sent yet: no trigger with a webhookUrl has had a run that ended."
    )
    columns = (
        ("Delivery", itself()), ("State", of_row(_delivery_state, "status", "attempt_count")), "environment", "trigger",
        "host", ("Last error", _LAST_ERROR), "Queued", "next_attempt_at",
    )  # fmt: skip
    list_filter = ("status", DatesFilter, "environment", "trigger")
    scopes = (Scope(("trigger",), ("created_at", "id")), Scope(("environment",), ("id",)))
    left_out = ("host",)  # It is a part of the URL, which is shown.
    facts = (
        ("State", column("status", state)), ("URL", "url"), "run", "trigger", "environment", ("Queued", "created_at"),
        ("Attempts", "attempt_count"), "next_attempt_at", "delivered_at", ("webhook-id", column("message_id", ident)),
        "id", ("Body", column("body", lambda body: data(json.loads(body)))),
    )  # fmt: skip
    panels = (attempts(DeliveryAttempt, "delivery"),)
    support = (
        SupportAction(
            "redeliver", "Send it again",
            "The same body goes out once more, with the same webhook-id, to the URL that the trigger has now.",
            "It is queued to be sent again.", applies=lambda delivery: delivery.status != Delivery.Status.PENDING,
            perform=lambda delivery, actor: redeliver(delivery_id=delivery.id, actor=actor),
        ),
    )  # fmt: skip
