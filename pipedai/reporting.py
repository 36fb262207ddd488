"""Keeps secrets out of crash reports: Django's pages and mails, and a service such as Sentry.

Values of variables may be secrets that no pattern marks, so our reports show none.
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
    """Sentry's `before_send`: removes the values of variables, and redacts the rest."""
    scrubbed: Report = redact(_without_held(report))
    if isinstance(request := scrubbed.get("request"), dict):
        scrubbed["request"] = {name: request[name] for name in _REQUEST if name in request}
    return scrubbed


# Options for Sentry, passed as `sentry_sdk.init(dsn, **SENTRY_OPTIONS)`. The SDK is no dependency of ours, so its user
# installs it.
SENTRY_OPTIONS: dict[str, Any] = {
    "include_local_variables": False,
    "max_request_body_size": "never",
    "send_default_pii": False,
    "before_send": scrub_report,
    "before_send_transaction": scrub_report,
    "before_breadcrumb": lambda crumb, _hint: redact(crumb),
}


class BlindReporterFilter(SafeExceptionReporterFilter):
    """Hides all variables, form fields and cookies in Django's crash reports, even with DEBUG."""

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
