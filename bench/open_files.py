"""Raises the limit of open files, so that a benchmark and its children can hold many connections."""

import resource

from bench.failure import BenchFailed


def allow_files(number: int) -> None:
    """Let this process and its children open `number` files. Raises BenchFailed if the system does not allow it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < number:
        raise BenchFailed(f"This needs {number} open files, and {hard} are allowed.")
    if soft != resource.RLIM_INFINITY and soft < number:
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))
