"""Refuses unfit settings when a process starts, and reports them in `manage.py check --deploy` (SPEC §8)."""

from collections.abc import Callable, Iterator
from typing import Any

from django.conf import settings
from django.core.checks import Error
from django.core.exceptions import ImproperlyConfigured

from pipedai.checks import keys, mail, network, process
from pipedai.redaction import escape_control, redact_text


def refuse_unfit_settings() -> None:
    """Raise ImproperlyConfigured for settings that can't be read, and in production also for unsafe ones.

    The message has a line for each problem. Every process of the service calls this when it starts.
    """
    broken = problems() if settings.PRODUCTION else _broken(_READABLE)
    if sentences := [sentence for _, sentence in broken]:
        raise ImproperlyConfigured("\n".join(sentences))


def check_production_settings(**_kwargs: Any) -> list[Error]:
    """Return the problems for `manage.py check --deploy`. It applies all production rules whatever `PIPEDAI_ENV` is."""
    return [Error(sentence, id=check_id) for check_id, sentence in problems()]


def problems() -> Iterator[tuple[str, str]]:
    """Yield an id and a sentence for each production rule that the settings break.

    No sentence contains a key.
    """
    return _broken(_RULES)


def _broken(rules: dict[str, Callable[[], str | None]]) -> Iterator[tuple[str, str]]:
    for check_id, rule in rules.items():
        if sentence := rule():
            yield check_id, escape_control(redact_text(sentence))


# Each rule has an id, as Django's checks do. An id is never used again for another rule.
_RULES: dict[str, Callable[[], str | None]] = {
    "pipedai.E001": keys.secret_key,
    "pipedai.E002": keys.master_keys,
    "pipedai.E003": process.debug,
    "pipedai.E004": network.allowed_hosts,
    "pipedai.E005": network.allowed_origins,
    "pipedai.E006": network.cookie_samesite,
    "pipedai.E007": process.throttles,
    "pipedai.E008": keys.beside_the_embedded_database,
    "pipedai.E009": network.webhook_networks,
    "pipedai.E010": network.public_url,
    "pipedai.E011": network.trusted_proxies,
    "pipedai.E012": process.durability,
    "pipedai.E013": process.python_debug,
    "pipedai.E014": keys.metrics_token,
    "pipedai.E015": mail.sender,
    "pipedai.E016": mail.encrypted_login,
    "pipedai.E017": network.dashboard_url,
}

# The rules in this dict hold in development too, because a setting that can't be read would crash the code that uses
# it. Each rule is a part of the production rule with the same id.
_READABLE: dict[str, Callable[[], str | None]] = {
    "pipedai.E002": keys.unreadable_master_keys,
    "pipedai.E009": network.unreadable_webhook_networks,
    "pipedai.E010": network.unreadable_public_url,
    "pipedai.E011": network.unreadable_trusted_proxies,
    "pipedai.E015": mail.unreadable_sender,
    "pipedai.E017": network.unreadable_dashboard_url,
}
