"""Settings are derived from what the machine or the container allows."""

import os
from pathlib import Path

import pytest
from django.conf import settings

from pipedai import env
from pipedai.api.parsers import MAX_CONTAINERS
from pipedai.server.memory_budget import Holding, MemoryBudget
from testing.world.cases import cases


@cases(
    ("processors", "threads", "memory_mib", "hashes", "budget"),
    [
        (8, 8, 256, 2, 51),  # each of two processes in a dyno of 512 MB
        (2, 8, 4096, 2, 256),
        (1, 8, 4096, 1, 256),
        (8, 2, 4096, 1, 256),
        (4, 1, 64, 1, 37),
    ],
)
def test_what_a_web_process_takes_fits_what_it_has(processors, threads, memory_mib, hashes, budget):
    taken = env.passwords_at_once(processors=processors, threads=threads, memory_mib=memory_mib)
    assert (taken, env.memory_budget_mib(memory_mib)) == (hashes, budget)


def test_the_smallest_process_has_room_for_the_longest_body_and_its_lists_and_objects():
    holding = Holding(MemoryBudget(env.memory_budget_mib(1)), "192.0.2.1")
    assert holding.has_room(settings.MAX_FILES_BYTES)
    holding.take(settings.MAX_FILES_BYTES)
    assert holding.take_parsed(200 * MAX_CONTAINERS)


def test_without_limits_the_machine_is_what_it_may_use(tmp_path):
    assert env.processors(tmp_path) <= (os.cpu_count() or 1)
    assert env.memory_mib(tmp_path) > 0


@pytest.mark.parametrize(
    ("name", "limit", "mib"),
    [
        ("memory.max", "536870912\n", 512),
        ("memory/memory.limit_in_bytes", "268435456\n", 256),
        ("memory.max", "max\n", None),
        ("memory/memory.limit_in_bytes", "9223372036854771712\n", None),
    ],
)
def test_the_limit_of_a_container_counts(tmp_path: Path, name: str, limit: str, mib: int | None):
    machines = env.memory_mib(tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(limit)
    assert env.memory_mib(tmp_path) == (mib or machines)


@pytest.mark.parametrize("quota", ["50000 100000", "100000 100000"])
def test_a_quota_of_processor_time_counts_in_whole_processors(tmp_path, quota):
    (tmp_path / "cpu.max").write_text(quota)
    assert env.processors(tmp_path) == 1
