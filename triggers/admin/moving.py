"""The support action by which staff move a trigger to another worker or pool of its environment."""

from collections.abc import Mapping
from typing import Any

from django import forms
from unfold.widgets import UnfoldAdminSelectWidget

from pipedai.events import Actor
from triggers.admin.explanations import Pool, Worker
from triggers.models import Trigger
from triggers.services import update_trigger


class MoveForm(forms.Form):
    """Asks which worker and which pool of the trigger's environment shall take its runs; at least one of them must."""

    worker_id: Any = forms.ModelChoiceField(
        None,
        label="Worker",
        required=False,
        empty_label="Any worker of the pool",
        widget=UnfoldAdminSelectWidget,
    )
    pool_id: Any = forms.ModelChoiceField(
        None,
        label="Pool",
        required=False,
        empty_label="No pool",
        help_text="With a worker and a pool, the worker comes first, and the pool's others take what it leaves.",
        widget=UnfoldAdminSelectWidget,
    )

    def __init__(self, trigger: Trigger, posted: Mapping[str, Any] | None) -> None:
        present = {"worker_id": trigger.worker_id, "pool_id": trigger.pool_id}
        super().__init__(posted, initial=present)
        workers, pools = (
            model._default_manager.filter(
                environment_id=trigger.environment_id, deleted_at__isnull=True
            )
            for model in (Worker, Pool)
        )
        columns = ("label", "hostname", "disabled_at")
        _choose_from(self.fields["worker_id"], workers.only(*columns).order_by("label"), _worker)
        _choose_from(self.fields["pool_id"], pools.only("name").order_by("name"), str)

    def clean(self) -> dict[str, Any]:
        """Returns the ids of the chosen worker and pool, each None if nothing was chosen."""
        chosen = {name: row and row.id for name, row in self.cleaned_data.items()}
        if not self.errors and not any(chosen.values()):
            raise forms.ValidationError("Choose a worker, a pool, or both.")
        return chosen


def move(trigger: Trigger, actor: Actor, **values: Any) -> None:
    """Moves the trigger and its queued runs to the worker and the pool whose ids the values of a MoveForm name."""
    update_trigger(trigger_id=trigger.id, values=values, actor=actor)


def _choose_from(field: Any, rows: Any, label: Any) -> None:
    field.queryset = rows
    field.label_from_instance = label


def _worker(worker: Any) -> str:
    """Returns the label of a worker, with its host name if that differs, and whether it is disabled."""
    where = "" if worker.hostname == worker.label else f" on {worker.hostname}"
    return f"{worker.label}{where}{' (disabled)' if worker.disabled_at else ''}"
