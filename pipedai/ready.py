"""Registers, when Django is ready, what belongs to no single app: probes, jobs, and the record of who has written."""

from pipedai import loop
from pipedai.api.throttling import prune_throttles
from pipedai.checks.probes import register_probes
from pipedai.events import happened
from pipedai.loop import Job, register_job
from pipedai.replica.reading import note_writers, prune_recent_writes
from pipedai.retention import Rounds

register_probes()
register_job(
    Job(
        "heartbeat",
        loop.HEARTBEAT_SECONDS,
        loop.send_heartbeat,
        does="Requests `HEARTBEAT_URL`, if it is set, on a thread of its own.",
        alone="It is about the process.",
    )
)
register_job(
    Job(
        "prune",
        3600.0,
        Rounds().work,
        does="Deletes what is older than its [retention](operations.md#retention), kind by kind.",
        alone="Nobody waits for a deletion. A turn deletes one batch, or looks for 0.2 s.",
    )
)
register_job(
    Job(
        "prune-throttles",
        60.0,
        prune_throttles,
        does="Deletes the counts of throttles that have expired.",
        alone="Nobody waits for a deletion.",
    )
)
register_job(
    Job(
        "prune-recent-writes",
        60.0,
        prune_recent_writes,
        does="Deletes the record of who wrote lately and so reads from the primary.",
        alone="Nobody waits for a deletion.",
    )
)
happened.connect(note_writers, dispatch_uid="pipedai.replica")
