"""The WSGI application: Django with DRF. The web process runs it inside `pipedai.asgi`."""

import os
from importlib import import_module
from typing import Any

import django
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from pipedai.api.principal import Principal
from pipedai.server.access_log import LOG

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "pipedai.settings")
django.setup(set_prefix=False)


class Handler(WSGIHandler):
    """Django's, which also tells the access log which route it was and who called."""

    def get_response(self, request: HttpRequest) -> HttpResponseBase:
        response = super().get_response(request)
        said = request.META.get("asgi.scope", {}).get(LOG)
        if said is not None:
            if request.resolver_match is not None:
                said["route"] = request.resolver_match.route
            # DRF puts its user here. Asking the type leaves admin's lazy user unread.
            user: Any = getattr(request, "user", None)
            if issubclass(type(user), Principal):
                said["principal"] = user.type
                said["principal_id"] = user.id
        return response


application = Handler()
# Django would do it at the first request; a process that can't serve must not start.
import_module(settings.ROOT_URLCONF)
