"""The console's pages, in the order in which people meet them. The names are `console:…` in templates and redirects."""

from django.urls import path

from console.screens import accounts, enrolling, environments, machines, money, pools, triggers

app_name = "console"

urlpatterns = [
    path("sign-in", accounts.sign_in, name="sign-in"),
    path("register", accounts.register, name="register"),
    path("forgot-password", accounts.forgot_password, name="forgot-password"),
    path("sign-out", accounts.sign_out, name="sign-out"),
    path("", environments.home, name="home"),
    path("environments", environments.choose, name="choose"),
    path("workspaces/new", environments.new_workspace, name="new-workspace"),
    path(
        "workspaces/<uuid:workspace_id>/environments/new",
        environments.new_environment,
        name="new-environment",
    ),
    path("environments/<uuid:environment_id>", environments.open_environment, name="environment"),
    path("environments/<uuid:environment_id>/triggers", triggers.triggers, name="triggers"),
    path("environments/<uuid:environment_id>/machines", machines.machines, name="machines"),
    path("environments/<uuid:environment_id>/machines/new", enrolling.new, name="add-machine"),
    path(
        "environments/<uuid:environment_id>/machines/new/<uuid:entry_id>",
        enrolling.arrival,
        {"kind": "api-keys"},
        name="api-keys-arrival",
    ),
    path("environments/<uuid:environment_id>/hosts/new", enrolling.new_host, name="add-host"),
    path(
        "environments/<uuid:environment_id>/hosts/new/<uuid:entry_id>",
        enrolling.arrival,
        {"kind": "enrollments"},
        name="enrollments-arrival",
    ),
    path(
        "environments/<uuid:environment_id>/hosts/new/<uuid:entry_id>/revoke",
        enrolling.revoke_code,
        name="revoke-code",
    ),
    path("machines/<uuid:worker_id>", machines.machine, name="machine"),
    path("machines/<uuid:worker_id>/edit", machines.edit, name="edit-machine"),
    path("machines/<uuid:worker_id>/revoke", machines.revoke, name="revoke-machine"),
    path("machines/<uuid:worker_id>/delete", machines.delete, name="delete-machine"),
    path("environments/<uuid:environment_id>/pools/new", pools.new, name="new-pool"),
    path("pools/<uuid:pool_id>", pools.pool, name="pool"),
    path("pools/<uuid:pool_id>/edit", pools.edit, name="edit-pool"),
    path("pools/<uuid:pool_id>/delete", pools.delete, name="delete-pool"),
    path("environments/<uuid:environment_id>/money", money.money, name="money"),
    path("environments/<uuid:environment_id>/budgets/new", money.new_budget, name="new-budget"),
    path("budgets/<uuid:budget_id>/edit", money.edit_budget, name="edit-budget"),
    path("budgets/<uuid:budget_id>/delete", money.delete_budget, name="delete-budget"),
]
