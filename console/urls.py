"""The console's pages, in the order in which people meet them. The names are `console:…` in templates and redirects."""

from django.urls import path

from console.screens import accounts, environments, run, runs, triggers

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
    path("environments/<uuid:environment_id>/runs", runs.runs, name="runs"),
    path("runs/<uuid:run_id>", run.run, name="run"),
    path("runs/<uuid:run_id>/rerun", run.rerun, name="rerun"),
    path("runs/<uuid:run_id>/cancel", run.cancel, name="cancel-run"),
]
