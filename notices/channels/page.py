"""The HTML page `/account/notices`, on which the owner of an address agrees to get notices, or refuses them."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe


@never_cache
@require_safe
def notices_page(request: HttpRequest) -> HttpResponse:
    """Shows the same page to everybody. Its script takes the token from the fragment of the URL, which browsers do not
    send to servers, and calls the API. Opening the page changes nothing, because some programs open every link of a
    mail.
    """
    response = render(request, "notices/address.html")
    response["Referrer-Policy"] = "no-referrer"
    return response
