"""Keeps error reports free of secrets: those of Django's own pages and mails, and those of Sentry's kind.

A report of a crash is made of what the code held at that moment, and here that is customers' secrets, which no name
and no pattern gives away. So reports tell where it crashed and what was said, and nothing of what was held.
"""

from collections.abc import ItemsView
from typing import Any

from django.http import HttpRequest
from django.views.debug import SafeExceptionReporterFilter

from pipedai.redaction import redact

_REQUEST = {"method", "url"}
_HELD = ("vars",)

Report = dict[str, Any]


def scrub_report(report: Report, _hint: Any = None) -> Report:
    """The report without what the code held, and with everything else redacted; for `before_send`."""
    scrubbed: Report = redact(_without_held(report))
    if isinstance(request := scrubbed.get("request"), dict):
        scrubbed["request"] = {name: request[name] for name in _REQUEST if name in request}
    return scrubbed


def scrub_breadcrumb(crumb: Report, _hint: Any = None) -> Report:
    """The breadcrumb, redacted; for `before_breadcrumb`."""
    scrubbed: Report = redact(crumb)
    return scrubbed


# `sentry_sdk.init(dsn, **SENTRY_OPTIONS)`. The SDK is none of our dependencies.
SENTRY_OPTIONS: dict[str, Any] = {
    "include_local_variables": False,
    "max_request_body_size": "never",
    "send_default_pii": False,
    "before_send": scrub_report,
    "before_send_transaction": scrub_report,
    "before_breadcrumb": scrub_breadcrumb,
}


class BlindReporterFilter(SafeExceptionReporterFilter):
    """Django's DEFAULT_EXCEPTION_REPORTER_FILTER: shows no variable, no form and no cookie, also with DEBUG."""

    def is_active(self, request: HttpRequest | None) -> bool:
        return True

    def get_safe_settings(self) -> dict[str, Any]:
        return {}

    def get_safe_request_meta(self, request: HttpRequest) -> dict[str, Any]:
        return {}

    def get_safe_cookies(self, request: HttpRequest) -> dict[str, Any]:
        return {}

    def get_post_parameters(self, request: HttpRequest | None) -> dict[str, Any]:
        return {}

    def get_traceback_frame_variables(
        self, request: HttpRequest | None, tb_frame: Any
    ) -> ItemsView[str, Any]:
        return ItemsView({})


def _without_held(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_held(item) for name, item in value.items() if name not in _HELD}
    if isinstance(value, list):
        return [_without_held(item) for item in value]
    return value
