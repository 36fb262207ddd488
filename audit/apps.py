"""The audit app: writes one append-only row for every mutating action."""

from django.apps import AppConfig


class AuditConfig(AppConfig):
    """The audit log."""

    name = "audit"

    def ready(self) -> None:
        """Subscribes to the domain events."""
        from audit import receivers  # noqa: F401, PLC0415
