"""Keeps secrets out of crash reports: Django's error pages and mails, and a service such as Sentry.

A crash report usually shows the values of variables, which may be customers' secrets that no name and no pattern marks
as secret. Therefore our reports tell where the code crashed and with which message, and show no values.
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
    """Returns a Sentry report without the values of variables, and with the secrets in its other parts redacted.

    It is Sentry's `before_send`.
    """
    scrubbed: Report = redact(_without_held(report))
    if isinstance(request := scrubbed.get("request"), dict):
        scrubbed["request"] = {name: request[name] for name in _REQUEST if name in request}
    return scrubbed


def scrub_breadcrumb(crumb: Report, _hint: Any = None) -> Report:
    """Returns a Sentry breadcrumb with its secrets redacted. It is Sentry's `before_breadcrumb`."""
    scrubbed: Report = redact(crumb)
    return scrubbed


# Options for Sentry, passed as `sentry_sdk.init(dsn, **SENTRY_OPTIONS)`. The SDK is no dependency of ours, so its user
# installs it.
SENTRY_OPTIONS: dict[str, Any] = {
    "include_local_variables": False,
    "max_request_body_size": "never",
    "send_default_pii": False,
    "before_send": scrub_report,
    "before_send_transaction": scrub_report,
    "before_breadcrumb": scrub_breadcrumb,
}


class BlindReporterFilter(SafeExceptionReporterFilter):
    """Hides all variables, form fields and cookies in Django's crash reports, even with DEBUG.

    The setting DEFAULT_EXCEPTION_REPORTER_FILTER names this class.
    """

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
