"""Registers, when Django is ready, what belongs to no single app: probes, jobs, and the record of who has written."""

from pipedai import loop
from pipedai.api.throttling import prune_throttles
from pipedai.checks.probes import register_probes
from pipedai.events import happened
from pipedai.loop import Job, register_job
from pipedai.replica.reading import note_writers, prune_recent_writes
from pipedai.retention import Rounds

register_probes()
register_job(Job("heartbeat", loop.HEARTBEAT_SECONDS, loop.send_heartbeat))
register_job(Job("prune", every_seconds=3600.0, work=Rounds().work))
register_job(Job("prune-throttles", every_seconds=60.0, work=prune_throttles))
register_job(Job("prune-recent-writes", every_seconds=60.0, work=prune_recent_writes))
happened.connect(note_writers, dispatch_uid="pipedai.replica")
