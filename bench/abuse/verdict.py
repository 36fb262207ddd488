"""Works out what the neighbour noticed of a flood, and whether that is little enough (SPEC §19)."""

from collections import Counter
from collections.abc import Sequence

from bench.abuse import hooks, ticking
from bench.abuse.life import LIVE, LOGIN
from bench.abuse.timed import Timed, within
from bench.abuse.watch import Stretch
from bench.figures import Json, latencies, quantile, ratio

# The targets: how many times as long the calls' p99 may be with the flood as without it, how many MiB more the process
# may use, and how many seconds later the service may do what it does by itself.
MOST_RATIO, MOST_MORE_MB, MOST_LATER_SECONDS = 3.0, 100.0, 2.0

# These are not counted with the other calls: a login takes as long as a password hash and may wait for it (SPEC §3),
# and probes of /health/live are far more frequent than calls.
APART = (LOGIN, LIVE)
BY_ITSELF = (hooks.KIND, ticking.KIND)
_COMMONEST = 5


def figures(things: Sequence[Timed], stretches: Sequence[Stretch]) -> Json:
    """Return the figures of these stretches of time together."""
    found = within(things, [stretch.window for stretch in stretches])
    seconds = sum(stretch.window.seconds for stretch in stretches)
    failures = Counter(f"{each.kind}: {each.failure}" for each in found if each.failure)
    calls = [each for each in found if each.kind not in (*APART, *BY_ITSELF)]
    kinds = sorted({each.kind for each in found})
    return {
        "calls": latencies([each.seconds for each in calls]),
        "kinds": {
            kind: latencies([each.seconds for each in found if each.kind == kind]) for kind in kinds
        },
        "failed": failures.total(),
        "failures": dict(failures.most_common(_COMMONEST)),
        "peakRssMb": round(max(each.peak_rss for each in stretches) / 2**20, 1),
        "webCpuPercent": round(100 * sum(each.cpu.web for each in stretches) / seconds),
        "postgresCpuPercent": round(100 * sum(each.cpu.postgres for each in stretches) / seconds),
    }


def compare(
    things: Sequence[Timed],
    calm: Sequence[Stretch],
    flooded: Stretch,
    *,
    calm_again: bool = True,
) -> Json:
    """Return the figures without the flood and with it, and which targets they miss. `calm_again` says whether the
    service became calm after the flood."""
    without, with_it = figures(things, calm), figures(things, [flooded])
    # Only the stretch before the flood counts, since the process may keep the memory that it needed during the flood.
    # Both peaks contain the memory of the neighbour's own logins.
    before = calm[0].peak_rss / 2**20
    found = {
        "without": without,
        "with": with_it,
        "p99Ratio": _ratio(without["calls"], with_it["calls"]),
        "usualRssMb": round(calm[0].usual_rss / 2**20, 1),
        "peakBeforeMb": round(before, 1),
        "moreMemoryMb": round(with_it["peakRssMb"] - before, 1),
        "laterSeconds": {kind: _later(things, calm, flooded, kind) for kind in BY_ITSELF},
    }
    words = complaints(found) if calm_again else [*complaints(found), "not calm again"]
    return {**found, "notMet": words}


def complaints(found: Json) -> list[str]:
    """Return the targets that the figures miss, in a few words each."""
    words = []
    if found["p99Ratio"] is None or found["p99Ratio"] > MOST_RATIO:
        words.append("p99")
    if found["moreMemoryMb"] > MOST_MORE_MB:
        words.append("memory")
    if found["with"]["failed"]:
        words.append("calls failed")
    words += [
        f"{kind} late"
        for kind, seconds in found["laterSeconds"].items()
        if seconds is not None and seconds > MOST_LATER_SECONDS
    ]
    return words


def _ratio(without: Json, with_it: Json) -> float | None:
    if without["p99Ms"] is None or with_it["p99Ms"] is None:
        return None
    return ratio(with_it["p99Ms"], without["p99Ms"])


def _later(
    things: Sequence[Timed], calm: Sequence[Stretch], flooded: Stretch, kind: str
) -> float | None:
    """Return by how many seconds the flood delays the 99th percentile of a thing that the service does by itself."""
    ours = [each for each in things if each.kind == kind]
    before = quantile([e.seconds for e in within(ours, [c.window for c in calm])], 0.99)
    meanwhile = quantile([e.seconds for e in within(ours, [flooded.window])], 0.99)
    return None if before is None or meanwhile is None else round(meanwhile - before, 3)
