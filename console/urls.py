"""The console's pages, in the order in which people meet them. The names are `console:…` in templates and redirects."""

from django.urls import URLPattern, URLResolver, include, path

from console.screens import (
    accounts,
    attention,
    channels,
    connections,
    enrolling,
    environments,
    finding,
    machines,
    money,
    runs,
    settings,
    several,
    single_sign_on,
    sources,
    triggers,
)
from console.screens.channels import CHANNELS
from console.screens.connections import CONNECTIONS
from console.screens.machines import MACHINES, POOLS
from console.screens.money import BUDGETS
from console.screens.sources import SOURCES
from console.screens.trigger_forms import TRIGGERS, schedule_preview

app_name = "console"

# The pages of an environment's settings.
of_settings = [
    path("people/leave", settings.leave, name="leave"),
    path("people/<uuid:user_id>/role", settings.change_role, name="change-role"),
    path("people/<uuid:user_id>/remove", settings.remove, name="remove-member"),
    path("invitations/<uuid:invitation_id>", settings.resend, name="resend-invitation"),
    path(
        "invitations/<uuid:invitation_id>/revoke",
        settings.revoke_invitation,
        name="revoke-invitation",
    ),
    path("keys", settings.keys, name="keys"),
    path("keys/<uuid:key_id>/revoke", settings.revoke_key, name="revoke-key"),
    path("channels", channels.channels, name="channels"),
    path("channels/new", CHANNELS.new, name="new-channel"),
    path("sources", sources.sources, name="sources"),
    path("sources/new", SOURCES.new, name="new-source"),
    path("audit", settings.audit, name="audit"),
    path("environment", settings.environment, name="environment-settings"),
    path("environment/delete", settings.delete_environment, name="delete-environment"),
]

# The pages of an environment.
of_environment: list[URLPattern | URLResolver] = [
    path("attention", attention.attention, name="attention"),
    path("incidents", attention.incidents, name="incidents"),
    path("triggers", triggers.triggers, name="triggers"),
    path("triggers/several", several.change_several, {"kind": "triggers"}, name="change-triggers"),
    path("runs/several", several.change_several, {"kind": "runs"}, name="change-runs"),
    path("triggers/new", TRIGGERS.new, name="new-trigger"),
    path("schedule-preview", schedule_preview, name="schedule-preview"),
    path("find", finding.find, name="find"),
    *(
        path(f"options/{kind}", finding.options, {"kind": kind}, name=f"options-{kind}")
        for kind in ("triggers", "workers", "pools", "connections")
    ),
    path("runs", runs.runs, name="runs"),
    path("approvals", attention.approvals, name="approvals"),
    path("machines", machines.machines, name="machines"),
    path("pools/new", POOLS.new, name="new-pool"),
    path("connections", connections.connections, name="connections"),
    path("connections/new", CONNECTIONS.new, name="new-connection"),
    path("money", money.money, name="money"),
    path("budgets/new", BUDGETS.new, name="new-budget"),
    path("settings", settings.people, name="settings"),
    *(
        path(f"{way}/{rest}", view, {"kind": kind}, name=name)
        for way, kind in (("machines", "api-keys"), ("hosts", "enrollments"))
        for rest, view, name in (
            ("new", enrolling.add_machine, f"add-{kind}"),
            ("new/<uuid:entry_id>", enrolling.arrival, f"{kind}-arrival"),
        )
    ),
    path("settings/", include(of_settings)),
]

urlpatterns = [
    path("sign-in", accounts.sign_in, name="sign-in"),
    path("register", accounts.register, name="register"),
    path("forgot-password", accounts.forgot_password, name="forgot-password"),
    path("sso", single_sign_on.begin, name="sso"),
    path("sso/callback", single_sign_on.callback, name="sso-callback"),
    path("sso/link", single_sign_on.link, name="link"),
    path("sign-out", accounts.sign_out, name="sign-out"),
    path("account", accounts.account, name="account"),
    path("account/change", accounts.change_account, name="change-account"),
    path("account/delete", accounts.delete_account, name="delete-account"),
    path("account/link", single_sign_on.link_by_mail, name="link-by-mail"),
    path("account/undo", single_sign_on.undo, name="undo-link"),
    path("account/unlink", single_sign_on.unlink, name="unlink"),
    path("account/password", accounts.change_password, name="change-password"),
    path("account/email", accounts.change_email, name="change-email"),
    path("account/confirm", accounts.send_confirmation, name="send-confirmation"),
    path("account/sessions", accounts.end_sessions, name="end-sessions"),
    path("pair", enrolling.pair, name="pair"),
    path("account/verify", accounts.verify, name="verify"),
    path("account/reset", accounts.reset, name="reset"),
    path("account/register", accounts.register_anew, name="register-anew"),
    path("account/invitation", accounts.invitation, name="invitation"),
    path("account/notices", accounts.notices, name="notices"),
    path("", environments.home, name="home"),
    path("environments", environments.choose, name="choose"),
    path("workspaces/new", environments.new_workspace, name="new-workspace"),
    path(
        "workspaces/<uuid:workspace_id>/environments/new",
        environments.new_environment,
        name="new-environment",
    ),
    path("environments/<uuid:environment_id>", environments.open_environment, name="environment"),
    path("incidents/<uuid:incident_id>/acknowledge", attention.acknowledge, name="acknowledge"),
    path("triggers/<uuid:trigger_id>", triggers.trigger, name="trigger"),
    path("triggers/<uuid:trigger_id>/edit", TRIGGERS.edit, name="edit-trigger"),
    path("triggers/<uuid:trigger_id>/run", triggers.run, name="run-trigger"),
    path("triggers/<uuid:trigger_id>/switch", triggers.switch, name="switch-trigger"),
    path("triggers/<uuid:trigger_id>/delete", TRIGGERS.delete, name="delete-trigger"),
    path("runs/<uuid:run_id>", runs.run, name="run"),
    path("runs/<uuid:run_id>/rerun", runs.rerun, name="rerun"),
    path("runs/<uuid:run_id>/cancel", runs.cancel, name="cancel-run"),
    path("approvals/<uuid:approval_id>", attention.approval, name="approval"),
    path("machines/<uuid:worker_id>", machines.machine, name="machine"),
    path("machines/<uuid:worker_id>/edit", MACHINES.edit, name="edit-machine"),
    path("machines/<uuid:worker_id>/delete", machines.delete_machine, name="delete-machine"),
    path("pools/<uuid:pool_id>", machines.pool, name="pool"),
    path("pools/<uuid:pool_id>/edit", POOLS.edit, name="edit-pool"),
    path("pools/<uuid:pool_id>/delete", POOLS.delete, name="delete-pool"),
    path("connections/<uuid:connection_id>", connections.connection, name="connection"),
    path("connections/<uuid:connection_id>/connect", connections.connect, name="connect"),
    path("connections/<uuid:connection_id>/edit", CONNECTIONS.edit, name="edit-connection"),
    path("connections/<uuid:connection_id>/delete", CONNECTIONS.delete, name="delete-connection"),
    path("budgets/<uuid:budget_id>/edit", BUDGETS.edit, name="edit-budget"),
    path("budgets/<uuid:budget_id>/delete", BUDGETS.delete, name="delete-budget"),
    path("triggers/<uuid:trigger_id>/revisions", triggers.revisions, name="revisions"),
    path(
        "triggers/<uuid:trigger_id>/revisions/<uuid:revision_id>/restore",
        triggers.restore,
        name="restore",
    ),
    path("channels/<uuid:channel_id>", channels.channel, name="channel"),
    path("channels/<uuid:channel_id>/test", channels.test_channel, name="test-channel"),
    path("channels/<uuid:channel_id>/delete", CHANNELS.delete, name="delete-channel"),
    path("sources/<uuid:source_id>", sources.source, name="source"),
    path("sources/<uuid:source_id>/delete", SOURCES.delete, name="delete-source"),
    path("events/<uuid:event_id>", sources.event, name="event"),
    path("events/<uuid:event_id>/replay", sources.replay, name="replay-event"),
    path("environments/<uuid:environment_id>/", include(of_environment)),
]
