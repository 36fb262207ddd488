"""The HTML page `/account/notices/stop`, to which the header `List-Unsubscribe` of mails leads.

Mail programs post to it without cookies and `Origin` (RFC 8058), so it can be no screen of the console.
"""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods

from notices.channels.consent import stop_notices
from notices.channels.views import nobody
from pipedai.api.authentication import PostedForm
from pipedai.api.errors import ApiError


@csrf_exempt
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def stop_page(request: HttpRequest) -> HttpResponse:
    """Shows a button that ends the notices. Mail programs send its POST without cookies and `Origin` (RFC 8058)."""
    context: dict[str, str] = {}
    status = 200
    if request.method == "POST":
        actor = nobody(PostedForm(request))
        try:
            stop_notices(token=request.GET.get("token", ""), actor=actor)
            context["done"] = "No notices of the environment will come to your address any more."
        except ApiError as error:
            context["error"], status = error.message, error.status_code
    response = render(request, "notices/stop.html", context, status=status)
    response["Referrer-Policy"] = "no-referrer"
    return response
