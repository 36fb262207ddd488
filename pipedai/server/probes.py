"""Names the paths that load balancers, supervisors and scrapers ask every few seconds (SPEC §12)."""

from pipedai.server.headers import API

# These paths answer whatever the request's Host says, because probes call a process by its address. HTTP/1.0 has no
# Host header at all, and HAProxy's checks are of that version unless it is told otherwise.
PROBES = frozenset({f"{API}/health", f"{API}/health/live", "/metrics"})
