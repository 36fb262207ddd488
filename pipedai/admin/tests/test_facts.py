"""Every column of a model is on the page of its row, so that a new one is not forgotten."""

from typing import Any

import pytest
from django.db import models

from pipedai.admin.site import site
from triggers.models import Trigger, TriggerRevision
from workers.models import Worker

# Columns that the page leaves out on purpose, besides sealed values and digests.
LEFT_OUT: dict[type[models.Model], set[str]] = {
    Trigger: {
        "revision_id",  # the page shows what the revision holds
        "mcp_key_id",
        "webhook_key_id",
    },
    TriggerRevision: {"environment_id", "trigger_id"},
    Worker: {
        "is_streamed",  # says how events are kept, not how the worker is
        "account_id",  # nobody is shown it; the page says whether there is one
    },
}
HOW = 'show it in the admin\'s `story` or name it in LEFT_OUT of this file: see CONTRIBUTING.md, "A field of a trigger"'


def not_shown(model: type[models.Model]) -> set[str]:
    """The columns that the page of the model's newest row does not read."""
    admin: Any = site._registry[model]
    row = admin.story_rows().order_by("-pk").first()
    # Django loads a column that is missing from the instance when it is read; the others stay missing.
    for field in model._meta.concrete_fields:
        if not field.primary_key:
            row.__dict__.pop(field.attname, None)
    admin.story(row)
    return set(row.get_deferred_fields())


@pytest.mark.parametrize("model", LEFT_OUT, ids=lambda model: model.__name__)
def test_every_column_is_shown_or_left_out_on_purpose(cast, model):
    sealed = {f.attname for f in model._meta.concrete_fields if isinstance(f, models.BinaryField)}
    forgotten = not_shown(model) - sealed - LEFT_OUT[model]
    assert not forgotten, f"{forgotten}: {HOW}"
