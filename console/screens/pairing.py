"""The screen on which a person lets a host or a command line in, or turns it away (RFC 8628; its §5.4 is phishing)."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from console.asking import Json, ask
from console.forms import Form, Look
from console.pages import screen

_CODE = Look(
    "Pairing code",
    help="Did somebody send you a link or a code? Then it is theirs, and not yours: go no further.",
)
_NOTHING_WAITS = (
    "Nothing waits with this code. It is shown where you began, on the host's or your own screen."
)
_ROLE = Look(
    "What it may do",
    help="At most what you may do yourself. Settings lists the key, and an admin revokes it there.",
    choices=[
        ("viewer", "viewer: look"),
        ("operator", "operator: also run, rerun and cancel"),
        ("admin", "admin: also apply files, and change triggers and settings"),
    ],
)
PAYS = Look(
    "How its runs are paid for",
    choices=[("claude_max", "By a Claude subscription"), ("api_key", "By an API key")],
)


@screen
def pair(request: HttpRequest) -> HttpResponse:
    """Who asks to be let in? A code in the URL is ignored, so that a person who follows a stranger's link must still
    read the code from a machine.
    """
    context: Json = {"account": ask(request, "GET", "auth/me").data["user"]}
    look = Form("POST", "pairings/look", {"userCode": _CODE}, catches={404})
    answer = look.send(request) if request.method == "POST" else None
    if answer is None:
        if look.status == 404:
            look.errors = [_NOTHING_WAITS]
        releases = ask(request, "GET", "releases/latest").data
        context |= {"install": releases["pipedaiWorker"]["install"]}
        return _show(request, look, context)
    found, code, step = answer.data, request.POST["userCode"], request.POST.get("step")
    places = {
        each["id"]: f"{each['workspaceName']} / {each['name']}" for each in found["environments"]
    }
    chosen = {"role": _ROLE} if found["for"] == "command_line" else {"authMode": PAYS}
    looks = {
        "userCode": Look(kind="hidden"),
        "environmentId": Look("Environment", choices=[("", "Choose one…"), *places.items()]),
        **chosen,
    }
    form = Form("POST", "pairings/approve", looks, values={"userCode": code}, catches={403, 404})
    context |= {"pairing": found, "code": code}
    if step == "deny":
        ask(request, "POST", "pairings/deny", body={"userCode": code})
        context["done"] = "denied"
    elif step == "approve" and form.send(request):
        context |= {"done": "approved", "place": places.get(request.POST["environmentId"])}
    return _show(request, form, context)


def _show(request: HttpRequest, form: Form, context: Json) -> HttpResponse:
    return render(request, "console/pair.html", {"form": form, **context}, status=form.status)
