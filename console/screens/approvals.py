"""The screens of approvals: what runs ask for, and the page on which somebody decides about one call."""

from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from console.asking import Json, Refused, ask
from console.pages import chosen, environment_of, screen, see_other, show

_STATUSES = ("pending", "approved", "rejected", "expired", "withdrawn")
# A word of its own, since what is pending elsewhere is on its way.
_STATES = {"pending": "undecided"}


@screen
def approvals(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    """What do runs ask for, and what was decided before?"""
    environment = environment_of(request, environment_id)
    query = chosen(request, "status")
    path = f"environments/{environment_id}/approvals"
    page = ask(request, "GET", path, query={**query, "limit": 25}).data
    context = {
        "approvals": [_with_state(each) for each in page["items"]],
        "statuses": [(each, _STATES.get(each, each)) for each in _STATUSES],
        "filters": query,
    }
    return show(request, environment, "approvals", "approvals", context, page)


@screen
def approval(request: HttpRequest, approval_id: UUID) -> HttpResponse:
    """May the run make this call? A POST decides. What is shown comes from the API as text, just as it will be done."""
    errors: list[str] = []
    status, path = 200, f"approvals/{approval_id}"
    if request.method == "POST":
        decision = request.POST.get("decision", "")
        body = {"decision": decision, "reason": request.POST.get("reason", "").strip() or None}
        try:
            ask(request, "POST", f"{path}/decide", body=body)
            return see_other(request, reverse("console:approval", args=[approval_id]))
        except Refused as refused:
            if refused.status not in {400, 403, 409, 429, 503}:
                raise
            errors, status = refused.sentences, refused.status
    found = ask(request, "GET", path).data
    context = {
        "approval": _with_state(found),
        "reason": request.POST.get("reason", ""),
        "errors": errors,
    }
    return show(request, found["environmentId"], "approvals", "approval", context, status=status)


def _with_state(found: Json) -> Json:
    return {**found, "state": _STATES.get(found["status"], found["status"])}
