"""A flood of forty thousand triggers that come due every minute, half of them without a worker."""

import asyncio
from collections import Counter

from bench.abuse.copies import copy_row
from bench.abuse.flooding import Flood, Stage
from bench.abuse.tenants import NEVER, new_customer
from bench.stack import Database

_ENVIRONMENTS = 8
_MOST, _PER_SECOND = 40_000, 2_000
_LOOK_SECONDS = 0.5
_DUE = """
UPDATE trigger SET next_run_at = date_trunc('minute', statement_timestamp())
WHERE next_run_at IS NOT NULL AND {ours}
"""
_LEFT = """
SELECT count(*) FROM trigger WHERE next_run_at <= statement_timestamp() AND {ours}
"""


class Schedules(Flood):
    """These triggers are older than the neighbour's, so that of all triggers due in the same minute they come first."""

    name = "schedules"
    what = "40,000 triggers that come due every minute, half without a worker"
    _on: Database
    _environments: str

    def prepare(self, stage: Stage) -> None:
        self._on = stage.on
        each = min(_MOST, int(_PER_SECOND * stage.seconds)) // (2 * _ENVIRONMENTS)
        made, ids = 0, []
        with new_customer(stage.port) as customer:
            for n in range(_ENVIRONMENTS):
                environment_id, key = customer.environment(f"environment-{n}")
                pair = customer.pair(environment_id, key, "host")
                without_worker = customer.pair(environment_id, key, "other-host", workerId=None)
                for original in (pair, without_worker):
                    _copy(stage.on, original.trigger_id, each, after=made)
                    made += each
                ids.append(environment_id)
        self.what = f"{made:,} triggers that come due every minute, half without a worker"
        self._environments = ",".join(ids)

    async def attack(self, port: int, answers: Counter[str]) -> None:
        self._on.execute(_DUE.format(ours=self._ours()))
        with self._on.session() as session:
            while True:
                row = session.execute(_LEFT.format(ours=self._ours())).fetchone()
                assert row is not None
                answers["most due at once"] = max(answers["most due at once"], row["count"])
                answers["half seconds with some due"] += row["count"] > 0
                await asyncio.sleep(_LOOK_SECONDS)

    def clear(self, on: Database) -> None:
        on.execute(f"UPDATE trigger SET enabled = false, next_run_at = NULL WHERE {self._ours()}")

    def _ours(self) -> str:
        return f"environment_id = ANY('{{{self._environments}}}')"


def _copy(on: Database, trigger_id: str, count: int, *, after: int) -> None:
    """Make `count` copies whose ids sort before all that the service makes. `after` copies have been made before."""
    copy_row(
        on, "trigger", trigger_id, count,
        id=f"('00000000-0000-7000-8000-' || lpad(to_hex({after} + n), 12, '0'))::uuid",
        schedule="'* * * * *'",
        next_run_at=f"timestamptz '{NEVER}'",
    )  # fmt: skip
