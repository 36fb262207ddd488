"""The table of the console's screens. A screen that is added here is tested as a page, and in a browser with axe."""

from dataclasses import dataclass

from testing.world.stage import Stage


@dataclass(frozen=True)
class Screen:
    """A screen that a visitor opens by a link.

    `path` is below /console, with the names of `Stage.ids` and `Stage.runs` in braces; `calls` is how many calls of the
    API it takes. `role` is the lowest role that sees it: one of an environment, or `user` or `nobody`.
    """

    name: str
    path: str
    calls: int
    role: str = "viewer"

    def url(self, stage: Stage) -> str:
        return f"/console/{self.path.format(**stage.ids, **stage.runs)}"


SCREENS = (
    Screen("sign-in", "sign-in", 0, role="nobody"),
    Screen("register", "register", 0, role="nobody"),
    Screen("forgot-password", "forgot-password", 0, role="nobody"),
    Screen("pair", "pair", 2, role="user"),
    Screen("verify", "account/verify", 1, role="user"),
    Screen("reset", "account/reset", 0, role="nobody"),
    Screen("register-anew", "account/register", 0, role="nobody"),
    Screen("invitation", "account/invitation", 0, role="nobody"),
    Screen("notices", "account/notices", 0, role="nobody"),
    Screen("account", "account", 2, role="user"),
    Screen("change-account", "account/change", 1, role="user"),
    Screen("delete-account", "account/delete", 1, role="user"),
    Screen("link-by-mail", "account/link", 0, role="nobody"),
    Screen("change-password", "account/password", 1, role="user"),
    Screen("change-email", "account/email", 1, role="user"),
    # One call for the workspaces, and one for the environments of each.
    Screen("choose", "environments", 2, role="user"),
    Screen("new-workspace", "workspaces/new", 1, role="user"),
    Screen("new-environment", "workspaces/{workspace_id}/environments/new", 1, role="user"),
    Screen("triggers", "environments/{environment_id}/triggers", 6),
    Screen("machines", "environments/{environment_id}/machines", 5),
    Screen("no-machines", "environments/{environment_id}/machines?status=online", 5),
    Screen("machine", "machines/{worker_id}", 5),
    Screen("edit-machine", "machines/{worker_id}/edit", 3),
    Screen("delete-machine", "machines/{worker_id}/delete", 4),
    Screen("add-machine", "environments/{environment_id}/machines/new", 3),
    Screen("add-host", "environments/{environment_id}/hosts/new", 5, role="admin"),
    Screen("arrival", "environments/{environment_id}/hosts/new/{enrollment_id}", 3, role="admin"),
    Screen("new-pool", "environments/{environment_id}/pools/new", 2),
    Screen("pool", "pools/{pool_id}", 6),
    Screen("edit-pool", "pools/{pool_id}/edit", 3),
    Screen("delete-pool", "pools/{pool_id}/delete", 3),
    Screen("connections", "environments/{environment_id}/connections", 3),
    Screen("new-connection", "environments/{environment_id}/connections/new", 2),
    Screen("connection", "connections/{connection_id}", 4),
    Screen("edit-connection", "connections/{connection_id}/edit", 3),
    Screen("delete-connection", "connections/{connection_id}/delete", 3),
    Screen("money", "environments/{environment_id}/money", 5),
    Screen("new-budget", "environments/{environment_id}/budgets/new", 2),
    Screen("edit-budget", "budgets/{budget_id}/edit", 5),
    Screen("delete-budget", "budgets/{budget_id}/delete", 3),
    Screen("no-triggers", "environments/{environment_id}/triggers?search=none", 6),
    Screen("trigger", "triggers/{trigger_id}", 8),
    Screen("new-trigger", "environments/{environment_id}/triggers/new", 6, role="admin"),
    Screen("edit-trigger", "triggers/{trigger_id}/edit", 7, role="admin"),
    Screen("delete-trigger", "triggers/{trigger_id}/delete", 3, role="admin"),
    Screen("find", "environments/{environment_id}/find?q=report", 3),
    Screen("runs", "environments/{environment_id}/runs", 4),
    Screen("no-runs", "environments/{environment_id}/runs?status=succeeded", 4),
    # The run, its environment, why it waits or how it ended, its worker, and what it told.
    Screen("run-queued", "runs/{queued}", 7),
    Screen("run-waiting", "runs/{asking}", 7),
    Screen("run-running", "runs/{running}", 7),
    Screen("run-ended", "runs/{ended}", 6),
    Screen("rerun", "runs/{ended}/rerun", 3),
    Screen("cancel-run", "runs/{running}/cancel", 3),
    Screen("approvals", "environments/{environment_id}/approvals", 3),
    Screen("no-approvals", "environments/{environment_id}/approvals?status=expired", 3),
    Screen("approval", "approvals/{approval_id}", 3),
    Screen("attention", "environments/{environment_id}/attention", 5),
    Screen("incidents", "environments/{environment_id}/incidents", 3),
    Screen("no-incidents", "environments/{environment_id}/incidents?kind=webhook_dead", 3),
    Screen("revisions", "triggers/{trigger_id}/revisions", 4),
    Screen("restore", "triggers/{trigger_id}/revisions/{revision_id}/restore", 4, role="admin"),
    # An admin's has two calls more, for the invitations and for what the members did last.
    Screen("people", "environments/{environment_id}/settings", 5),
    Screen("leave", "environments/{environment_id}/settings/people/leave", 3),
    Screen(
        "remove-member",
        "environments/{environment_id}/settings/people/{user_id}/remove",
        3,
        role="admin",
    ),
    Screen(
        "revoke-invitation",
        "environments/{environment_id}/settings/invitations/{invitation_id}/revoke",
        3,
        role="admin",
    ),
    Screen("keys", "environments/{environment_id}/settings/keys", 3),
    Screen(
        "revoke-key", "environments/{environment_id}/settings/keys/{key_id}/revoke", 3, role="admin"
    ),
    Screen("channels", "environments/{environment_id}/settings/channels", 3, role="admin"),
    Screen("new-channel", "environments/{environment_id}/settings/channels/new", 3, role="admin"),
    Screen("channel", "channels/{channel_id}", 5, role="admin"),
    Screen("delete-channel", "channels/{channel_id}/delete", 3, role="admin"),
    Screen("sources", "environments/{environment_id}/settings/sources", 3),
    Screen("new-source", "environments/{environment_id}/settings/sources/new", 2, role="admin"),
    Screen("source", "sources/{source_id}", 5),
    Screen("delete-source", "sources/{source_id}/delete", 3, role="admin"),
    Screen("event", "events/{event_id}", 3, role="operator"),
    Screen("replay-event", "events/{event_id}/replay", 3, role="operator"),
    Screen("audit", "environments/{environment_id}/settings/audit", 4, role="admin"),
    Screen("environment", "environments/{environment_id}/settings/environment", 2),
    Screen(
        "delete-environment",
        "environments/{environment_id}/settings/environment/delete",
        2,
        role="owner",
    ),
)
