"""Makes the links that mails and messages have to the page of the console that they are about."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from django.conf import settings

from pipedai.server.request_scope import CONSOLE

# The path of each page below the console's. `{}` is the id of what the page is about.
PAGES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "password": "account/password",
        "verify": "account/verify",
        "reset": "account/reset",
        "register": "account/register",
        "invitation": "account/invitation",
        "notices": "account/notices",
        "attention": "environments/{}/attention",
        "money": "environments/{}/money",
        "trigger": "triggers/{}",
        "run": "runs/{}",
        "approval": "approvals/{}",
        "worker": "machines/{}",
        "pool": "pools/{}",
        "channel": "channels/{}",
        "connection": "connections/{}",
    }
)


def link_to_page(page: str, about: object = "") -> str:
    """Returns the URL of a page of `PAGES` about what has that id. A dashboard that DASHBOARD_URL names has its pages
    at the same paths as the console.
    """
    site = settings.DASHBOARD_URL or f"{settings.PUBLIC_URL}{CONSOLE}"
    return f"{site}/{PAGES[page].format(about)}"
