"""Creates triggers (SPEC §5)."""

from typing import Any
from uuid import UUID

from django.apps import apps
from django.db import transaction

from pipedai.api.errors import Invalid
from pipedai.events import Actor, Event, emit
from pipedai.ids import new_id
from pipedai.sql import database_now
from triggers import cron, secrets
from triggers.models import Trigger, TriggerRevision
from workspaces.locks import hold_environment


def create_trigger(*, environment_id: UUID, actor: Actor, values: dict[str, Any]) -> UUID:
    """A new trigger from the validated values of a TriggerBody; its id. Its secrets are sealed here and go no further.

    Raises NotFound if the environment has been deleted, Invalid for a worker that is not the
    environment's or a schedule that never comes due.
    """
    values = dict(values)
    prompt, model = values.pop("prompt"), values.pop("model")
    headers, secret = values.pop("mcp_headers"), values.pop("webhook_secret")
    trigger = Trigger(
        id=new_id(),
        environment_id=environment_id,
        revision_id=new_id(),
        next_run_at=_next_run_at(values),
        **values,
    )
    _seal(trigger, headers, secret)
    with transaction.atomic():
        hold_environment(environment_id)
        _check_worker(environment_id, trigger.worker_id)
        trigger.save(force_insert=True)
        TriggerRevision.objects.create(
            id=trigger.revision_id,
            environment_id=environment_id,
            trigger_id=trigger.id,
            prompt=prompt,
            model=model,
        )
        emit(
            Event(
                "trigger.created",
                actor,
                environment_id,
                "trigger",
                trigger.id,
                {"name": trigger.name},
            )
        )
    return trigger.id


def _next_run_at(values: dict[str, Any]) -> Any:
    if not values["enabled"] or values["schedule"] is None:
        return None
    try:
        return cron.parse(values["schedule"], values["timezone"]).next_after(database_now())
    except cron.BadSchedule as error:
        raise Invalid({"schedule": [str(error)]}) from None


def _seal(trigger: Trigger, headers: dict[str, str] | None, secret: str | None) -> None:
    if headers:
        sealed = secrets.seal_mcp_headers(trigger.environment_id, trigger.id, headers)
        trigger.mcp_headers, trigger.mcp_key_id = sealed.box, sealed.data_key_id
    if secret:
        sealed = secrets.seal_webhook_secret(trigger.environment_id, trigger.id, secret)
        trigger.webhook_secret, trigger.webhook_key_id = sealed.box, sealed.data_key_id


def _check_worker(environment_id: UUID, worker_id: UUID | None) -> None:
    """A worker that exists and is this environment's, kept so until the transaction ends; a foreign
    one looks missing.
    """
    if worker_id is None:
        return
    workers = apps.get_model("workers", "Worker")._default_manager
    found = (
        workers.select_for_update(no_key=True)
        .filter(environment_id=environment_id, id=worker_id, deleted_at__isnull=True)
        .exists()
    )
    if not found:
        raise Invalid({"workerId": ["No such worker in this environment."]})
