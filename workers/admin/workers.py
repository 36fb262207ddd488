"""Django admin's pages of workers."""

from typing import Any

from django.contrib.admin import display, register
from django.db.models import Q, QuerySet
from django.utils import timezone

from pipedai.admin.base import StaffModelAdmin, also_find_by
from pipedai.admin.change_list import LOOKS_THROUGH_CUSTOMERS, Scope
from pipedai.admin.filters import related
from pipedai.admin.panels import Facts, Panel, Table
from pipedai.admin.site import site
from pipedai.admin.start_page import Figure, show_figures
from pipedai.admin.support import SupportAction
from pipedai.admin.values import ident, link_to, list_of, moment, state, text, yes
from pipedai.sql import fetch_one
from triggers.models import Run, Trigger
from triggers.states import HELD
from workers.admin.triggers_panel import triggers_panel
from workers.models import ONLINE_WITHIN, Pool, PoolMember, Worker
from workers.services import approve_worker, revoke_token, update_worker
from workspaces.admin.environments import where_member
from workspaces.models import ApiKey, Environment, Membership

_SHOWN = 50
_ONLINE = """
SELECT count(*) AS live, count(*) FILTER (
    WHERE last_seen_at > statement_timestamp() - %(within)s) AS online
FROM worker WHERE deleted_at IS NULL
"""


@register(Worker, site=site)
class WorkerAdmin(StaffModelAdmin):
    icon = "dns"
    is_shortcut = True
    when_empty = "No worker has registered yet."
    list_display = (
        "label",
        "hostname",
        "shown_state",
        "in_environment",
        "version",
        "seen",
        "created",
    )
    list_filter = (related("environment", Environment),)
    list_reads = (
        "id", "label", "hostname", "version", "disabled_at", "deleted_at", "last_seen_at", "created_at",
        "environment__name",
    )  # fmt: skip
    list_select_related = ("environment",)
    searched_text = {
        "label": "label",
        "hostname": "host name",
        "environment__name": "environment",
        "environment__workspace__name": "workspace",
    }
    searched_address = "member's e-mail address"
    looks_through = LOOKS_THROUGH_CUSTOMERS
    scopes = (Scope(("environment",), ("created_at", "id")),)
    story_joins = ("environment",)
    never_read = ("token_digest", "account_id")
    support = (
        SupportAction(
            "disable",
            "Disable the worker",
            "It finishes what it holds and gets nothing new; its queued runs wait until it is enabled again.",
            "The worker is disabled.",
            applies=lambda worker: worker.deleted_at is None and worker.disabled_at is None,
            perform=lambda worker, actor: update_worker(
                worker=worker, values={"disabled": True}, actor=actor
            ),
        ),
        SupportAction(
            "enable",
            "Enable the worker",
            "It gets runs again, what has waited for it first.",
            "The worker is enabled.",
            applies=lambda worker: worker.deleted_at is None and worker.disabled_at is not None,
            perform=lambda worker, actor: update_worker(
                worker=worker, values={"disabled": False}, actor=actor
            ),
        ),
        SupportAction(
            "approve",
            "Approve the worker",
            "A key's token registered it. From now on it is handed runs with the MCP headers of their triggers, in"
            " plaintext: be sure whose machine it is.",
            "The worker is approved.",
            applies=lambda worker: (
                worker.deleted_at is None and worker.unapproved_since is not None
            ),
            perform=lambda worker, actor: approve_worker(worker=worker, actor=actor),
            is_harsh=True,
        ),
        SupportAction(
            "lift-limit",
            "Lift the usage limit",
            "It gets runs again at once, as if its account's limit were over. Other workers of the same account stay"
            " limited. If the account has nothing left, its next run fails and limits it anew.",
            "The worker's usage limit is lifted.",
            applies=lambda worker: worker.deleted_at is None and _is_limited(worker),
            perform=lambda worker, actor: update_worker(
                worker=worker, values={"limited_until": None}, actor=actor
            ),
        ),
        SupportAction(
            "revoke-token",
            "Revoke the token",
            "Its wkt_ token is dead at once. Runs in its hands are lost by their leases and retried; it must register"
            " again with a new wrk_ key.",
            "The worker's token is revoked.",
            applies=lambda worker: worker.has_token,
            perform=lambda worker, actor: revoke_token(worker=worker, actor=actor),
            is_harsh=True,
        ),
    )

    def found_by_address(self, address: str) -> Q | None:
        """Returns the condition for the workers of all environments of which the user with this address is a member."""
        return where_member(address, "environment")

    @display(description="State")
    def shown_state(self, worker: Worker) -> Any:
        """Returns the worker's state: `deregistered`, `disabled`, `online` or `offline`."""
        return shown_state(worker)

    @display(description="Environment")
    def in_environment(self, worker: Worker) -> Any:
        return link_to(Environment, worker.environment_id, worker.environment.name)

    @display(description="Last seen")
    def seen(self, worker: Worker) -> Any:
        return moment(worker.last_seen_at)

    @display(description="Registered")
    def created(self, worker: Worker) -> Any:
        return moment(worker.created_at)

    def title_of(self, row: Worker) -> str:
        return row.label

    def story_rows(self) -> QuerySet[Any]:
        """Adds `has_token` and `has_account` to the worker's row: the page shows whether there is a token and a word
        for the account, without reading the token's digest and the word.
        """
        rows: QuerySet[Any] = (
            super()
            .story_rows()
            .annotate(
                has_token=Q(token_digest__isnull=False), has_account=Q(account_id__isnull=False)
            )
        )
        return rows

    def story(self, row: Any) -> list[Panel]:
        """Returns the page of one worker: its machine, the runs that it has claimed and not ended, its pools, and the
        triggers that use it.
        """
        held = Run.objects.filter(worker=row, slot__isnull=False, status__in=HELD)
        return [
            Facts(
                "Worker",
                [
                    ("State", self.shown_state(row)),
                    ("Label", row.label),
                    ("Host name", row.hostname),
                    ("Environment", self.in_environment(row)),
                    ("System", row.os),
                    ("Version", row.version),
                    ("Pays by", row.auth_mode),
                    ("Names its account", yes(row.has_account)),
                    ("Usage limit until", moment(row.limited_until)),
                    ("Runs at once", row.max_concurrency),
                    ("Has a token", yes(row.has_token)),
                    ("Registered from", text(row.registered_from)),
                    ("Brought in by the host of key", link_to(ApiKey, row.host_key_id)),
                    ("Registered", self.created(row)),
                    ("Last seen", self.seen(row)),
                    ("Waits for approval since", moment(row.unapproved_since)),
                    ("Disabled", moment(row.disabled_at)),
                    ("Deregistered", moment(row.deleted_at)),
                    ("Id", ident(row.id)),
                ],
            ),
            Table(
                "In hand",
                ("Run", "State", "Trigger", "Claimed", "Lease ends"),
                [
                    (
                        link_to(Run, run.id),
                        state(run.status),
                        link_to(Trigger, run.trigger_id, run.trigger.name),
                        moment(run.claimed_at),
                        moment(run.lease_expires_at),
                    )
                    for run in held.select_related("trigger")
                    .only("status", "claimed_at", "lease_expires_at", "trigger__name")
                    .order_by("slot")[:_SHOWN]
                ],
                nothing="No run at this moment.",
                more=list_of(Run, worker=row.id),
            ),
            Table(
                "Its pools",
                ("Name", "Since"),
                [
                    (link_to(Pool, each.pool_id, each.pool.name), moment(each.created_at))
                    for each in PoolMember.objects.filter(worker=row)
                    .select_related("pool")
                    .only("created_at", "pool__name")
                    .order_by("pool_id")
                ],
                nothing="It is in no pool.",
            ),
            triggers_panel(worker=row.id),
        ]


def shown_state(worker: Worker) -> Any:
    """Returns a worker's state as the pages show it: `deregistered`, `disabled`, `online` or `offline`."""
    if worker.deleted_at:
        return state("deregistered")
    if worker.disabled_at:
        return state("disabled")
    return state("online" if _is_online(worker) else "offline")


def _is_online(worker: Worker) -> bool:
    # The API compares `last_seen_at` with the database's clock. This page only displays the result, so the web
    # process's clock is exact enough.
    seen = worker.last_seen_at
    return seen is not None and seen > timezone.now() - ONLINE_WITHIN


def _is_limited(worker: Worker) -> bool:
    # The services compare `limited_until` with the database's clock. This page only decides whether to offer an action,
    # so the web process's clock is exact enough.
    return worker.limited_until is not None and worker.limited_until > timezone.now()


def _figures() -> list[Figure]:
    row = fetch_one(_ONLINE, {"within": ONLINE_WITHIN})
    assert row is not None
    return [
        Figure("Workers online", f"{row['online']:,}", f"of {row['live']:,}", href=list_of(Worker))
    ]


show_figures(_figures)


def _with_host(term: str) -> QuerySet[Worker, Any]:
    """Returns the environments that have a worker whose host name contains the term."""
    return Worker.objects.filter(hostname__icontains=term).values("environment")


also_find_by(Environment, "host name", lambda term: Q(id__in=_with_host(term)))
also_find_by(Membership, "host name", lambda term: Q(environment__in=_with_host(term)))
