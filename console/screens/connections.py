"""The screens of connections: which MCP servers runs can use, what is wrong, and the button that repairs it."""

from dataclasses import replace
from urllib.parse import urlsplit
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from console.asking import Json, Refused, ask
from console.forms import Look
from console.pages import MOST, ResourceScreens, all_of, screen, see_other, show

_NAME = Look(help="Such as Issue tracker.")
_URL = Look("URL of the MCP server", help="Such as https://mcp.notion.com/mcp. It never changes.")
_SCOPES = Look(help="One a line. Empty: those that the server asks for.")
_ID = Look(
    "Client id", help="Only if the server registers no clients by itself: then of one of yours."
)
_SECRET = Look("Client secret", kind="password", autocomplete="new-password")
_HEADERS = Look(
    help="They are encrypted, and shown to nobody.",
    kind="headers",
    required=True,
)
# What people read for each grant, and the fields of its form.
_GRANTS = {
    "authorization_code": "a person signs in",
    "client_credentials": "with a client’s own secret",
    "headers": "with fixed headers",
}
_LOOKS = {
    "authorization_code": {
        "name": _NAME,
        "mcpUrl": _URL,
        "clientId": _ID,
        "clientSecret": _SECRET,
        "scopes": _SCOPES,
    },
    "client_credentials": {
        "name": _NAME,
        "mcpUrl": _URL,
        "clientId": Look("Client id", required=True),
        "clientSecret": replace(_SECRET, required=True),
        "scopes": _SCOPES,
    },
    "headers": {"name": _NAME, "mcpUrl": _URL, "headers": _HEADERS},
}
_FIXED = {"mcpUrl", "clientId"}
_UNCHANGED = {
    "headers": Look("New headers", help="Empty: the current ones stay.", kind="headers"),
    "clientSecret": Look(
        "New client secret",
        help="Empty: the current one stays. Only for a client id that somebody gave.",
        kind="password",
        autocomplete="new-password",
    ),
}
# What to do about a state. If it depends on the grant, there is a text for each grant.
_REMEDIES = {
    "unauthorized": "Press Connect, and sign in at the server. Runs that need it wait until then.",
    "failing": "The service keeps trying, and runs go on while the present token lives.",
    "needs_login": "Press Connect again, and sign in at the server. Runs that need it wait until then.",
    "unauthorized by client_credentials": "A scheduler asks for its token in a moment.",
    "needs_login by client_credentials": "Give it a client secret that works. Runs that need it wait until then.",
}
# The order of the list. States that need a person come first.
_ORDER = ("needs_login", "failing", "unauthorized", "connected")


def _looks(_: HttpRequest, row: Json) -> dict[str, Look]:
    looks = _LOOKS[row["grant"]]
    if "id" not in row:
        return looks
    secret = _UNCHANGED["clientSecret"]
    if server := row["nextIssuer"] or row["issuer"]:
        whose = f"It is sent to {server} alone."
        if row["nextIssuer"]:
            whose += f" The current one stays with {row['issuer'] or 'the server before'}."
        secret = replace(secret, help=f"{secret.help} {whose}")
    kept = {**_UNCHANGED, "clientSecret": secret}
    return {name: kept.get(name, look) for name, look in looks.items() if name not in _FIXED}


CONNECTIONS = ResourceScreens(
    noun="connection",
    menu="connections",
    looks=_looks,
    deleting="Its secrets go with it, and its grant is ended at the server where the server can do so.",
    listed="console:connections",
    page="console:connection",
    chooses="grant",
    choices=_GRANTS,
)


@screen
def connections(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    """Shows which MCP servers runs can use, and which they can't use any more."""
    found = all_of(request, environment_id, "connections")
    for each in found:
        each["how"] = _GRANTS[each["grant"]]
    context = {"connections": sorted(found, key=lambda each: _ORDER.index(each["status"]))}
    return show(request, environment_id, "connections", "connections", context)


@screen
def connection(request: HttpRequest, connection_id: UUID) -> HttpResponse:
    """Shows whether runs can use the connection, which triggers do, and what to do about it."""
    return _show(request, connection_id)


@screen
def connect(request: HttpRequest, connection_id: UUID) -> HttpResponse:
    """Shows the link to the authorization server, or why there is none."""
    if request.method != "POST":
        return see_other(request, reverse("console:connection", args=[connection_id]))
    try:
        way = ask(request, "POST", f"connections/{connection_id}/authorize").data
    except Refused as refused:
        if refused.status != 409:
            raise
        return _show(request, connection_id, problems=refused.sentences)
    # The page does not redirect, so that the person sees where the browser is about to go.
    host, issuer = urlsplit(way["url"]).netloc, urlsplit(way["issuer"]).netloc
    context = {"url": way["url"], "host": host, "issuer": issuer if issuer != host else ""}
    return render(request, "console/go_on.html", context)


def _show(
    request: HttpRequest, connection_id: UUID, problems: list[str] | None = None
) -> HttpResponse:
    found = CONNECTIONS.find(request, connection_id=connection_id)
    environment_id, status, grant = found["environmentId"], found["status"], found["grant"]
    context = {
        "connection": found,
        "grant": _GRANTS[grant],
        "remedy": _REMEDIES.get(f"{status} by {grant}") or _REMEDIES.get(status),
        "triggers": all_of(request, environment_id, "triggers", connectionId=found["id"]),
        "user": _user_of(request, found),
        "problems": problems,
    }
    code = 409 if problems else 200
    return show(request, environment_id, "connections", "connection", context, status=code)


def _user_of(request: HttpRequest, found: Json) -> str:
    """Returns the name of the user who connected it, or words that this user has left. Returns an empty text if nobody
    connected it, or if the user may be one of more members than the list has.
    """
    if found["connectedBy"] is None:
        return ""
    members = all_of(request, found["environmentId"], "members")
    for each in members:
        if each["userId"] == found["connectedBy"]:
            return str(each["name"] or each["email"])
    return "" if len(members) == MOST else "somebody who has left"
