"""The server's settings: those an operator may change, and those that safety depends on."""

import os
from collections.abc import Mapping
from pathlib import Path

# Written to postgresql.conf when the cluster is made: for a small box, and whoever runs a larger
# one edits them there.
DEFAULTS: Mapping[str, str] = {
    "max_connections": "200",
    "shared_buffers": "128MB",
    "effective_cache_size": "1GB",
    "work_mem": "8MB",
    "wal_compression": "on",
    "random_page_cost": "1.1",
    "jit": "off",
    "log_checkpoints": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}

# Statements and their values hold customers' secrets, and none may reach the log. An error's own
# text quotes values too, and its DETAIL whole rows or statements: ordinary errors are not logged
# at all (the session that made one is told), and of the rest only the first line.
DISCREET: Mapping[str, str] = {
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_statement": "none",
    "log_min_duration_statement": "-1",
    "log_min_duration_sample": "-1",
    "log_transaction_sample_rate": "0",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
}

# On the server's command line, which no file and no ALTER SYSTEM overrides.
_PINNED: Mapping[str, str] = {
    "listen_addresses": "",
    "port": "5432",
    "unix_socket_permissions": "0700",
    "password_encryption": "scram-sha-256",
    "log_destination": "stderr",
    "logging_collector": "off",
    **DISCREET,
}

_FAST_UNSAFE: Mapping[str, str] = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
}


def fast_unsafe() -> bool:
    """Whether durability is given up for speed (`PIPEDAI_PG_FAST_UNSAFE=1`): for tests only."""
    return os.environ.get("PIPEDAI_PG_FAST_UNSAFE", "") == "1"


def server_arguments(socket_dir: Path) -> list[str]:
    """The command line of a server that listens in this directory and nowhere else."""
    return as_arguments(
        {
            **_PINNED,
            "unix_socket_directories": str(socket_dir),
            **(_FAST_UNSAFE if fast_unsafe() else {}),
        }
    )


def as_arguments(settings: Mapping[str, str]) -> list[str]:
    """Settings as PostgreSQL's programs take them: `-c name=value`."""
    return [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
