"""The server's settings: those that an operator may change, and those on which safety depends."""

from collections.abc import Mapping
from pathlib import Path

# What initdb writes to postgresql.conf, for a small machine. An operator of a larger one edits that file.
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

# These settings keep customers' secrets, which are in statements and their values, out of the server's log. An error's
# text may quote values, and its DETAIL whole rows or statements. Therefore ordinary errors are only reported to the
# session that made them, and of graver errors only the first line is logged.
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

# Settings that must not be changed: no file and no ALTER SYSTEM can override the server's command line.
_PINNED: Mapping[str, str] = {
    "listen_addresses": "",
    "port": "5432",
    "unix_socket_permissions": "0700",
    "password_encryption": "scram-sha-256",
    "log_destination": "stderr",
    "logging_collector": "off",
    **DISCREET,
}

# Settings of a server that only tests use: it may lose data in a crash, and is faster.
FASTER: Mapping[str, str] = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_compression": "off",
    # It would look at a test's rows in the middle of the test, and so change the plans that the test expects.
    "autovacuum": "off",
    # A client hashes the password this many times for each connection. By default it takes 2 ms of CPU time.
    "scram_iterations": "1",
}


def server_arguments(socket_dir: Path, more: Mapping[str, str]) -> list[str]:
    """Returns the server's arguments: what is pinned, its socket's directory, and the settings `more`."""
    return as_arguments({**_PINNED, "unix_socket_directories": str(socket_dir), **more})


def as_arguments(settings: Mapping[str, str]) -> list[str]:
    return [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
