"""Lets a benchmark and its children hold many connections."""

import resource

from bench.failure import BenchFailed


def allow_files(number: int) -> None:
    """Let this process and its children have so many files open. Raises BenchFailed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < number:
        raise BenchFailed(f"This needs {number} open files, and {hard} are allowed.")
    if soft != resource.RLIM_INFINITY and soft < number:
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))
