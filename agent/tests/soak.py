"""Lets a worker work for hours at high speed, against a fake API that fails now and then.

    PYTHONPATH=agent python agent/tests/soak.py --hours 8 --speed 150

A real worker process, whose pauses are divided by the speed, polls, executes runs, has runs canceled, loses answers,
and sees the API restart. At the end every run must have exactly one outcome and must have been executed at most once,
and the worker's memory, threads and open files must not have grown. It works only on Linux, because it reads /proc.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipedai_worker import api as worker_api
from pipedai_worker import cli
from pipedai_worker.conformance.fake_api import DROP, TERMINAL, FakeApi, FakeRun, route
from pipedai_worker.conformance.serving import Service
from pipedai_worker.disk import spool
from pipedai_worker.identity import WorkerConfig
from pipedai_worker.running import loop, reporting

AGENT = Path(__file__).resolve().parents[1]
RUN_EVERY_SECONDS = 20.0
LONGEST_RUN_SECONDS = 60.0
RESTART_EVERY_SECONDS = 1800.0
CONCURRENCY = 4
LEASE_SECONDS = 180.0
SAMPLES = 40
SETTLE_SECONDS = 60.0
# Memory may grow by this much from the second quarter to the last, because it always rises and falls a little.
LARGEST_GROWTH_KIB = 4 * 1024
# The probability with which a request fails in each way, and with which a run is canceled.
FAULTS: tuple[tuple[int | str, float], ...] = ((DROP, 0.03), (503, 0.03))
CANCELED_RUNS = 0.05
AS_WORKER = "--as-worker"


@dataclass(frozen=True)
class Sample:
    memory_kib: int
    threads: int
    files: int


@dataclass(frozen=True)
class Figures:
    """`lost` counts runs without an outcome, and `doubled` runs that were executed or reported twice. The memory of the
    last quarter of the time is compared with that of the second.
    """

    hours: float
    wall_seconds: float
    asked: int
    heartbeats: int
    runs: int
    statuses: dict[str, int]
    faults: int
    restarts: int
    lost: int
    doubled: int
    first: Sample
    second_quarter: Sample
    last_quarter: Sample
    # The memory that the worker used, measured at equal intervals over the whole time.
    memory_kib: tuple[int, ...]
    exit_code: int

    @property
    def growth_kib(self) -> int:
        return self.last_quarter.memory_kib - self.second_quarter.memory_kib


class UnreliableApi(FakeApi):
    def __init__(self, speed: float, chance: random.Random) -> None:
        super().__init__()
        self._speed = speed
        self._chance = chance
        self.faults_made = 0
        self.capacity = CONCURRENCY
        self.lease_seconds = LEASE_SECONDS / speed

    def answer(self, method: str, url: str, headers: Any, body: dict[str, Any]) -> Any:
        with self.lock:
            status = self._chosen_fault()
            if status is not None:
                kind, _ = route(method, urlsplit(url).path)
                self.faults_made += 1
                self.fail(kind, status)
            return super().answer(method, url, headers, body)

    def _chosen_fault(self) -> int | str | None:
        """Choose how a request fails, or None. At most one fault is chosen: a second would hit the next request."""
        for status, likely in FAULTS:
            if self._chance.random() < likely:
                return status
        return None

    def _wait_for(self, what: Callable[[], Any], seconds: float) -> Any:
        return super()._wait_for(what, seconds / self._speed)


def soak(hours: float, speed: float, seed: int = 1) -> Figures:
    """Raises AssertionError if runs do not end, or if their events do not arrive."""
    chance = random.Random(seed)
    api = UnreliableApi(speed, chance)
    service = Service(api)
    service.start()
    with tempfile.TemporaryDirectory(prefix="pipedai-soak-") as name:
        directory = Path(name)
        process = _start_worker(api, service.url, directory, speed)
        try:
            return _live(api, service, process, directory / "launched", hours, speed, chance)
        finally:
            process.kill()
            process.wait()
            service.close()


def _live(
    api: UnreliableApi,
    service: Service,
    process: subprocess.Popen[bytes],
    launched: Path,
    hours: float,
    speed: float,
    chance: random.Random,
) -> Figures:
    began = time.monotonic()
    length = hours * 3600 / speed
    api.until(lambda: api.asked(), SETTLE_SECONDS)
    samples = [_sample(process.pid)]
    runs: list[FakeRun] = []
    restarts = 0
    now = 0.0
    while now < length:
        # The time `now` is read from the clock and not counted up. If this process was paused for a while, everything
        # that was due in that time is done now.
        now = min(time.monotonic() - began, length)
        while len(runs) < now * speed / RUN_EVERY_SECONDS:
            length_of_run = chance.uniform(0, LONGEST_RUN_SECONDS) / speed
            # Each run has secrets of its own. If the worker kept anything that it makes from them, its memory would
            # grow.
            headers = {"Authorization": f"Bearer {chance.getrandbits(256):064x}"}
            prompt = f"{length_of_run:.3f}"
            runs.append(api.add(prompt, mcp_headers=headers, record_events="always"))
            if chance.random() < CANCELED_RUNS:
                api.cancel(runs[-1])
        if restarts < now * speed // RESTART_EVERY_SECONDS:
            restarts += 1
            service.stop()
            time.sleep(10 / speed)
            service.start()
        if len(samples) < SAMPLES * now / length:
            samples.append(_sample(process.pid))
        time.sleep(min(0.05, RUN_EVERY_SECONDS / speed))
    api.until(lambda: all(run.status in TERMINAL for run in runs), SETTLE_SECONDS)
    executions = Counter(launched.read_text().split())
    api.until(lambda: all(_has_told(run) for run in runs if executions[run.id]), SETTLE_SECONDS)
    samples.append(_sample(process.pid))
    process.terminate()
    exit_code = process.wait(SETTLE_SECONDS)
    quarter = max(1, len(samples) // 4)
    return Figures(
        hours=hours,
        wall_seconds=round(time.monotonic() - began, 1),
        asked=api.asked(),
        heartbeats=api.count("heartbeat"),
        runs=len(runs),
        statuses=dict(Counter(run.status for run in runs)),
        faults=api.faults_made,
        restarts=restarts,
        lost=sum(run.status not in TERMINAL or run.outcome is None for run in runs),
        doubled=sum(_is_doubled(api, run, executions[run.id]) for run in runs),
        first=samples[0],
        second_quarter=_largest(samples[quarter : 2 * quarter] or samples),
        last_quarter=_largest(samples[-quarter:]),
        memory_kib=tuple(sample.memory_kib for sample in samples),
        exit_code=exit_code,
    )


def _has_told(run: FakeRun) -> bool:
    return [event["text"] for event in run.events] == [f"{run.id}\n"]


def _is_doubled(api: FakeApi, run: FakeRun, executions: int) -> bool:
    reported = {json.dumps(body, sort_keys=True) for body in api.bodies("complete", run)}
    endings = [status for status in run.history if status in TERMINAL]
    return executions > 1 or len(endings) > 1 or len(reported) > 1


def _sample(pid: int) -> Sample:
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    files = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    return Sample(int(status["VmRSS"].split()[0]), int(status["Threads"]), files)


def _largest(samples: list[Sample]) -> Sample:
    return Sample(
        max(sample.memory_kib for sample in samples),
        max(sample.threads for sample in samples),
        max(sample.files for sample in samples),
    )


def _start_worker(api: FakeApi, url: str, directory: Path, speed: float) -> subprocess.Popen[bytes]:
    config = directory / "worker.json"
    WorkerConfig(api.worker_id, api.worker_token, url, "").save(config)
    script = f"echo $PIPEDAI_RUN_ID | tee -a {directory / 'launched'}; exec sleep $(cat)"
    with (directory / "worker.log").open("wb") as log:
        return subprocess.Popen(
            [
                *(sys.executable, __file__, AS_WORKER, f"{speed:g}"),
                *("run", "--config", str(config), "--command", f"sh -c '{script}'"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={
                **os.environ,
                "PYTHONPATH": str(AGENT),
                "HOME": str(directory),
                spool.LOCAL_EVENTS_VARIABLE: "1",
            },
        )


def _be_worker(speed: float, argv: list[str]) -> int:
    for module, name in (
        (loop, "SHORTEST_EMPTY_POLL_SECONDS"),
        (worker_api, "FIRST_SECONDS"),
        (reporting, "SHORTEST_SECONDS"),
        (reporting, "LONGEST_SECONDS"),
        (loop, "UNCLAIMED_PAUSE_SECONDS"),
        (reporting, "GATHER_SECONDS"),
        (reporting, "FLUSH_SECONDS"),
    ):
        setattr(module, name, getattr(module, name) / speed)
    return cli.main(argv)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hours", type=float, default=8.0, help="default %(default)g")
    parser.add_argument("--speed", type=float, default=150.0, help="default %(default)g")
    parser.add_argument("--seed", type=int, default=1, help="of the faults (default %(default)d)")
    options = parser.parse_args()
    figures = soak(options.hours, options.speed, options.seed)
    print(json.dumps({**asdict(figures), "growth_kib": figures.growth_kib}, indent=2))
    grew = figures.growth_kib > LARGEST_GROWTH_KIB
    return 1 if figures.lost or figures.doubled or figures.exit_code or grew else 0


if __name__ == "__main__":
    if sys.argv[1:2] == [AS_WORKER]:
        sys.exit(_be_worker(float(sys.argv[2]), sys.argv[3:]))
    sys.exit(main())
