"""Names the pages of the console, for its own links and for those of mails and messages."""

from django.conf import settings

from pipedai.server.request_scope import CONSOLE

# The path of each page below the console's path. `{}` is the id of the row that the page shows, and `{environment}`
# the id of the row's environment.
PAGES = {
    "account": "account",
    "password": "account/password",
    "verify": "account/verify",
    "reset": "account/reset",
    "register": "account/register",
    "invitation": "account/invitation",
    "link": "account/link",
    "undo": "account/undo",
    "notices": "account/notices",
    "attention": "environments/{environment}/attention",
    "machines": "environments/{environment}/machines",
    "approvals": "environments/{environment}/approvals",
    "budget": "environments/{environment}/money",
    "environment": "environments/{environment}/settings",
    "trigger": "triggers/{}",
    "run": "runs/{}",
    "approval": "approvals/{}",
    "worker": "machines/{}",
    "pool": "pools/{}",
    "channel": "channels/{}",
    "connection": "connections/{}",
}


def path_of_page(page: str, about: object = "", environment: object = "") -> str:
    """Returns the path of a page of `PAGES` that shows the row with the id `about`."""
    return f"{CONSOLE}/{PAGES[page].format(about, environment=environment)}"


def link_to_page(page: str, about: object = "", environment: object = "") -> str:
    """Returns the URL of that page. If DASHBOARD_URL names a dashboard, it must have its pages at the same paths that
    the console has below its own path.
    """
    path = path_of_page(page, about, environment)
    dashboard = settings.DASHBOARD_URL
    return dashboard + path.removeprefix(CONSOLE) if dashboard else settings.PUBLIC_URL + path
