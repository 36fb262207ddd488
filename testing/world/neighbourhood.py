"""Makes a tenant who goes on as on any day, or one who floods the service, for `bin/bench neighbours`.

    python -m testing.world.neighbourhood quiet
    python -m testing.world.neighbourhood KIND...

works in the database that DATABASE_URL or PIPEDAI_DATA_DIR names, and prints as JSON what the benchmark needs of the
tenant. A kind is one of `testing.world.floods`, or `channels`, `listeners` or `keys`.
"""

import json
import os
import sys
from typing import Any

import django

# As many as the attack had that found what these floods show.
ROWS, CHANNELS, ENDED, LISTENERS, KEYS = 2_000, 100, 60, 100, 20


def main(kinds: list[str]) -> dict[str, Any]:
    os.environ["DJANGO_SETTINGS_MODULE"] = "pipedai.settings"
    django.setup()
    from testing.world.cast import make_cast
    from testing.world.events import SOURCE_SECRET, add_source
    from testing.world.floods import FLOODS

    cast = make_cast()
    told: dict[str, Any] = {
        "environmentId": str(cast.environment.id),
        "triggerId": str(cast.trigger_id),
        "key": cast.mint("pwk", role="admin"),
    }
    if kinds == ["quiet"]:
        return told | _quiet(cast)
    if "channels" in kinds:
        _add_channels(cast)
    if "listeners" in kinds:
        source_id = add_source(cast)
        _add_listeners(cast, source_id)
        told |= {"sourceId": str(source_id), "secret": SOURCE_SECRET}
    if "keys" in kinds:
        told["keys"] = [cast.mint("pwk", role="admin") for _ in range(KEYS)]
    for kind in kinds:
        if kind in FLOODS:
            FLOODS[kind](cast, ROWS)
    return told


def _quiet(cast: Any) -> dict[str, Any]:
    """Adds a run that has ended, a webhook that is told of ends, and a trigger that listens to them."""
    from notices.states import RUN_ENDED
    from testing.world.channels import add_channel
    from testing.world.events import listen
    from testing.world.runs import Runs
    from triggers.models import Trigger

    add_channel(cast, "webhook", events=[RUN_ENDED], url="https://hooks.example/quiet")
    runs = Runs.of(cast)
    ended = runs.ended()
    listen(cast.add_trigger(worker_id=None), upstream_id=runs.trigger_id, outcome="any")
    due = cast.add_trigger(schedule="0 0 1 1 *", worker_id=None)
    Trigger.objects.filter(id=due).update(next_run_at="9999-01-01T00:00Z")
    return {"runId": str(ended), "dueId": str(due)}


def _add_channels(cast: Any) -> None:
    """Adds channels whose clauses search the output of each of many ended runs."""
    from notices.models import Channel
    from notices.states import RUN_RESULT
    from testing.world.channels import add_channel
    from testing.world.copied_rows import copy_row
    from testing.world.runs import Runs

    clauses = [{"path": "/output/list", "op": "contains", "value": -n} for n in range(1, 20)]
    values = {"events": [RUN_RESULT, "trigger_late"], "tells_when": clauses}
    channel = add_channel(cast, "webhook", url="https://hooks.example/flood", **values)
    copy_row(Channel, channel.id, CHANNELS - 1, name="'channel ' || n")
    runs = Runs.of(cast)
    for _ in range(ENDED):
        runs.ended(output={"list": list(range(8_000))})


def _add_listeners(cast: Any, source_id: Any) -> None:
    """Adds triggers that listen to one source with as many values as their clauses may list."""
    from testing.world.events import listen

    where = [
        {"path": "/n", "op": "in", "value": list(range(10_000 * n, 10_000 * n + 600))}
        for n in range(1, 5)
    ]
    for _ in range(LISTENERS):
        listen(cast.add_trigger(worker_id=None), source_id=source_id, where=where)


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])))
