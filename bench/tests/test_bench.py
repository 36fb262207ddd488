"""Runs a short version of each benchmark, and checks its output. It does not judge the figures."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench import everything
from bench.arguments import parse
from bench.failure import BenchFailed
from bench.figures import latencies, print_table, quantile
from bench.growth.benchmark import misses
from bench.growth.plans import sequential_scans
from bench.growth.verdicts import judge, show_shapes
from bench.idle import polls_caused
from bench.idle_load import Taken
from bench.lifecycle_load import CALLS, SHORT_CALLS
from bin.suite import new_data_dir
from console.tests.screens import SCREENS
from pipedai.env import BASE_DIR
from triggers.runs.stats import GROUPINGS

NAMES = (
    "lifecycle",
    "peer",
    "idle",
    "events",
    "events-in",
    "console",
    "growth",
    "start",
    "firing",
    "deliveries",
    "kill",
    "schedulers",
    "abuse",
)

# A short measurement on a busy machine may find no CPU time, which Linux counts in hundredths of a second.
_CPU_MS = ("webCpuMs", "postgresCpuMs", "loadCpuMs")
# How many seconds a benchmark may take on a machine with other work.
_LONGEST_SECONDS = 700
# What a benchmark says if nothing ended within its --seconds, as can be on such a machine.
_TOO_SHORT = "give it more --seconds.\n"
pytestmark = pytest.mark.timeout(_LONGEST_SECONDS + 30)


@pytest.fixture
def _few_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives each web process two threads. Each thread makes a connection, and a new one after each outage."""
    monkeypatch.setenv("WEB_THREADS", "2")


@pytest.fixture
def data_dir(kept_cluster: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Makes a data directory, in which databases begin as copies of one that has the schema.

    If root runs the tests, PostgreSQL's user could not reach one in pytest's tmp_path.
    """
    parent = new_data_dir()
    monkeypatch.setenv("BENCH_CLUSTER", str(kept_cluster))
    yield parent / "data"
    shutil.rmtree(parent)


def _bench(*arguments: str, data_dir: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        cwd=BASE_DIR,
        env={**os.environ, "PIPEDAI_DATA_DIR": str(data_dir)},
        capture_output=True,
        text=True,
        timeout=_LONGEST_SECONDS,
    )


def _measured(
    data_dir: Path, *arguments: str, may_miss: bool = False
) -> tuple[dict[str, Any], str]:
    """Runs a benchmark, checks that nothing is left of its database, and returns what it wrote and printed.

    With `may_miss` it may miss its targets, which means nothing on a machine with other work. If it asks for more
    time, it gets five times as much, once."""
    file = data_dir.parent / "result.json"
    done = _bench(*arguments, "--json", str(file), data_dir=data_dir)
    if done.stderr.endswith(_TOO_SHORT):
        at = arguments.index("--seconds") + 1
        longer = (*arguments[:at], str(5 * int(arguments[at])), *arguments[at + 1 :])
        done = _bench(*longer, "--json", str(file), data_dir=data_dir)
    missed = may_miss and done.stderr.splitlines()[-1].startswith("NOT met: ")
    assert done.returncode == int(missed), done.stderr
    assert not list(data_dir.iterdir())
    return json.loads(file.read_text()), done.stdout


@pytest.mark.long
def test_lifecycle_measures_http_beside_bare_django_and_bare_sql(data_dir):
    found, shown = _measured(
        data_dir, "lifecycle", "--clients", "1,2", "--seconds", "1", "--protocol", "short"
    )
    assert found["benchmark"] == "lifecycle"
    assert found["webProcesses"] == 1
    assert {"cores", "python", "postgres", "loadBefore"} <= set(found["machine"])
    assert [at["clients"] for at in found["results"]] == [1, 2]
    for at in found["results"]:
        http, bare, django = at["http"], at["bareSql"], at["bareDjango"]
        assert http["lifecyclesPerSecond"] > 0
        assert bare["lifecyclesPerSecond"] > 0
        assert django["lifecyclesPerSecond"] > 0
        assert at["ofBareSql"] > 0
        assert at["ofBareDjango"] > 0
        assert list(http["calls"]) == list(CALLS)
        assert list(at["short"]["http"]["calls"]) == list(SHORT_CALLS)
        assert at["short"]["ofLong"] > 0
        assert at["short"]["ofBareDjango"] > 0
        assert {call["count"] for call in http["calls"].values()} == {http["lifecycle"]["count"]}
        for figures in (
            http["lifecycle"],
            bare["lifecycle"],
            django["lifecycle"],
            *http["calls"].values(),
        ):
            # pgbench reads the clock once for all answers that it finds at once, so it may measure 0 for a lifecycle.
            assert 0 <= figures["p50Ms"] <= figures["p99Ms"]
        for name in _CPU_MS:
            assert http[name] >= 0
            assert django[name] >= 0
        assert http["webRssMb"] > 0
        assert django["webRssMb"] > 0
        assert bare["postgresCpuMs"] >= 0
    servers = found["servers"]
    assert servers["ofGthread"] > 0
    assert servers["lanes"]["requestsPerSecond"] > 0
    assert servers["gthread"]["webCpuMs"] >= 0
    assert all(f"| {call}" in shown for call in (*CALLS, *SHORT_CALLS))
    assert shown.count("the short protocol does") == 2


@pytest.mark.long
def test_idle_measures_waiting_and_waking(data_dir):
    found, shown = _measured(data_dir, "idle", "--waiters", "5", "--seconds", "2")
    assert found["benchmark"] == "idle"
    assert found["waiters"] == 5
    each = {"webMemoryKb", "webCpuMsPerMinute", "postgresCpuMsPerMinute"}
    assert set(found["perWaiter"]) == each
    assert found["wakeUp"]["created"]["count"] == 5
    assert found["wakeUp"]["handedOut"]["count"] == 5
    assert 0 < found["wakeUp"]["handedOut"]["p50Ms"] <= found["wakeUp"]["handedOut"]["p99Ms"]
    assert set(found["otherCalls"]) == {"nobodyWaits", "allWait", "eachWakes"}
    assert found["otherCalls"]["allWait"]["count"] > 0
    assert "its worker has it" in shown


@pytest.mark.long
def test_a_lifecycle_of_a_pool_is_measured_beside_workers_with_triggers(data_dir):
    short = ("--pool", "--clients", "2", "--seconds", "1")
    found, shown = _measured(data_dir, "lifecycle", *short)
    (at,) = found["results"]
    assert list(at["pool"]["calls"]) == list(CALLS)
    for kind in ("own", "pool"):
        assert at[kind]["lifecyclesPerSecond"] > 0
        assert at[kind]["postgresCpuMs"] >= 0
    assert at["lostClaims"] >= 0
    assert "all are in one pool" in shown


@pytest.mark.long
def test_idle_counts_the_polls_that_a_run_of_a_pool_causes(data_dir):
    found, shown = _measured(data_dir, "idle", "--pool", "--waiters", "5", "--seconds", "1")
    assert found["wakeUp"]["handedOut"]["count"] == 5
    assert 1 <= found["pollsPerRun"]["mean"] <= found["pollsPerRun"]["most"]
    assert "polls that one run of the pool causes" in shown


def test_only_questions_that_a_run_caused_are_counted():
    runs = [("first", "a", 100.0), ("second", "b", 101.0), ("third", "a", 102.0)]
    taken = [Taken(run_id, worker_id, at, at + 0.05) for run_id, worker_id, at in runs]
    asks = [
        *("85.0 a 1", "85.1 a 2", "95.0 b 1", "95.1 b 2", "86.0 c 2", "98.0 d 2"),
        *("100.01 a 3", "100.02 c 3", "100.02 d 3"),  # c asks as it does every 15 s
        *("100.03 a 1", "100.04 a 2"),  # a begins its next poll
        "101.01 b 3",
        *("101.9 a 1", "102.01 a 2", "102.02 d 4"),  # a's poll takes a run as it begins
    ]
    assert polls_caused("\n".join(asks), taken) == [2, 1, 2]


@pytest.mark.long
def test_each_event_that_is_taken_queues_a_run(data_dir):
    found, shown = _measured(
        data_dir, "events-in", "--rate", "30", "--clients", "1", "--seconds", "2"
    )
    assert found["events"]["count"] > 0
    assert "request to queued run" in shown


@pytest.mark.long
def test_events_come_once_and_in_order(data_dir):
    short = ("--runs", "3", "--idle", "3", "--seconds", "2", "--clients", "1")
    found, shown = _measured(data_dir, "events", *short, "--web-processes", "1")
    # Two seconds alone, a warm-up, and two seconds beside lifecycles are six seconds in whole calls.
    assert (found["events"], found["lost"], found["doubled"]) == (3 * 6 * 20, 0, 0)
    both = found["alone"]["untilRead"]["count"] + found["untilRead"]["count"]
    assert both == found["events"]
    assert found["alone"]["webCpuMsPerCall"] >= 0
    assert found["webMemoryKbPerIdleStream"] is not None
    assert found["lifecyclesPerSecond"]["besideEvents"] > 0
    assert "web memory KB each" in shown


@pytest.mark.long
def test_growth_looks_at_every_list_and_at_shapes_and_keeps_each_plan(data_dir, monkeypatch):
    monkeypatch.setenv("BENCH_QUEUED", "100")
    short = ("--sizes", "1k", "--month", "1000", "--repeats", "1", "--values", "1")
    one_shape = ("--shapes", "many-budgets", "--rows", "1k,2k")
    found, shown = _measured(data_dir, "growth", *short, *one_shape, may_miss=True)
    (at,) = found["results"]
    assert at["runs"] == 1000
    assert "at 1,000 runs a month" in shown
    assert {"overview", *(f"statistics by {each}" for each in GROUPINGS)} == at["busyMonth"].keys()
    assert all(page["ms"] > 0 for page in at["busyMonth"].values())
    pages = at["pages"]
    assert {"poll", "overview", "a whole lifecycle", "firing 100 due triggers"} <= pages.keys()
    for name in ("runs", "ticks", "deliveries", "audit log", "triggers", "workers"):
        assert {name, f"{name}, deep"} <= pages.keys()
    assert "runs?status=queued" in pages
    assert "poll past a full trigger" in pages
    for page in pages.values():
        assert page["ms"] > 0
        statements = [each for each in page["statements"] if each["plan"] is not None]
        assert len(statements) >= len(page["statements"]) - 1
    assert "slowest page of" in shown
    calls = {call["call"]: call for call in found["shapes"]}
    assert calls.keys() == {"finding reached budgets", "budgets", "triggers"}
    (reads,) = (
        each
        for each in calls["finding reached budgets"]["statements"]
        if "least_amount" in each["sql"]
    )
    for cost in (*reads["lag"], *reads["analysed"]):
        assert cost["ms"] > 0
        assert cost["rowsRead"] > 0
        assert cost["plan"]["Plans"]
    assert "Shape many-budgets, 1,000 → 2,000 rows" in shown


@pytest.mark.long
def test_console_measures_each_screen(data_dir):
    few = ("--triggers", "10", "--runs", "20", "--repeats", "1")
    found, shown = _measured(data_dir, "console", *few)
    assert [each["name"] for each in found["screens"]] == [each.name for each in SCREENS]
    measured = {each["name"]: each for each in found["screens"]}
    assert len(measured["trigger"]["calls"]) == 6
    assert measured["trigger"]["statements"] > 0
    assert 0 < found["assetsKb"] < measured["trigger"]["kb"] < 60
    assert "over 100 ms or 60 KB" in shown


@pytest.mark.long
def test_start_measures_the_first_answer(data_dir):
    found, shown = _measured(data_dir, "start", "--repeats", "1")
    assert found["web"]["cpuSeconds"] > 0
    assert found["web"]["seconds"] > 0
    assert 0 < found["run"]["secondsToAnswer"] <= found["run"]["secondsToShowARun"]
    assert "to the first 200" in shown


@pytest.mark.long
def test_firing_measures_triggers_that_come_due_each_second(data_dir):
    short = ("--triggers", "120", "--each-second", "20", "--seconds", "3", "--schedulers", "1")
    found, shown = _measured(data_dir, "firing", *short)
    lag = found["lag"]["eachSecond"]
    assert lag["count"] == 60
    assert 0 < lag["p50Ms"] <= lag["p99Ms"]
    assert lag["schedulerCpuMs"] >= 0
    assert "20 each second" in shown


@pytest.mark.long
def test_deliveries_measures_live_hosts_beside_dead_ones(data_dir):
    short = ("--deliveries", "200", "--hosts", "10", "--seconds", "2", "--schedulers", "1")
    found, shown = _measured(data_dir, "deliveries", *short)
    assert found["lag"]["count"] == 20
    # Nine dead hosts once held every place for ten seconds, again and again.
    assert 0 < found["lag"]["p50Ms"] < 10_000
    assert "9 dead hosts" in shown


@pytest.mark.long
def test_every_run_ends_once_whatever_is_killed(data_dir):
    found, shown = _measured(data_dir, "kill", "--runs", "50", "--seconds", "9")
    print(shown)  # so that the seed is in the output of a failed test
    assert found["benchmark"] == "kill"
    assert found["attempts"] >= found["runs"] == 50
    assert found["interruptedInHand"] > 0
    assert found["reservationsSettled"] > 50
    assert found["lostInAPoolAndDoneByAnother"] > 0
    for victim in (
        "executing worker", "reporting worker", "worker of a pool", "web", "scheduler", "postgres",
    ):  # fmt: skip
        assert found["kills"][victim] > 0


@pytest.mark.long
@pytest.mark.usefixtures("_few_threads")
def test_a_failover_loses_no_run_and_doubles_none(data_dir):
    found, shown = _measured(data_dir, "kill", "--failover", "--runs", "15", "--seconds", "5")
    print(shown)
    assert found["attempts"] == found["runs"] == 15
    assert found["leasesLost"] == 0
    assert found["longestSecondsWithoutService"] > 0
    for failover in found["failovers"]:
        assert max(failover[name] for name in ("web", "scheduler", "listen")) <= 5
    assert "without service" in shown


@pytest.mark.long
@pytest.mark.usefixtures("_few_threads")
def test_an_outage_ends_no_healthy_run_and_hides_no_dead_worker(data_dir):
    found, shown = _measured(data_dir, "kill", "--outage", "4", "15")
    print(shown)
    assert {(each["part"], each["seconds"]) for each in found["outages"]} == {
        (part, seconds) for part in ("database", "web", "scheduler") for seconds in (4, 15)
    }
    assert 4 < found["leaseSeconds"] < 15
    assert found["runs"] == 6 * (6 + 1)
    assert found["leasesLost"] == 6  # of the dead workers
    assert found["succeeded"] == found["runs"]
    assert found["executed"] == found["runs"] + 6


@pytest.mark.long
def test_every_tick_is_decided_once_whichever_scheduler_is_killed(data_dir):
    found, shown = _measured(data_dir, "schedulers", "--triggers", "50", "--seconds", "6")
    assert found["benchmark"] == "schedulers"
    assert found["ticks"] == found["triggers"] * found["minutes"] == 100
    assert found["runs"] == found["fired"]
    assert found["kills"] > 0
    assert "every tick decided once" in shown


@pytest.mark.long
def test_abuse_measures_a_neighbour_without_and_with_a_flood(data_dir):
    # Half of the seconds are one stretch without the flood. Each kind of call is due at least once a second.
    arguments = ("abuse", "--floods", "logins", "--seconds", "2")
    found, shown = _measured(data_dir, *arguments, may_miss=True)
    assert found["benchmark"] == "abuse"
    (at,) = found["results"]
    assert at["flood"] == "logins"
    assert sum(at["answers"].values()) > 0
    assert at["without"]["calls"]["count"] > 0
    assert {"create", "list", "live", "scheduled run"} <= at["without"]["kinds"].keys()
    assert at["without"]["failed"] == 0
    assert at["with"]["peakRssMb"] > 0
    assert at["notMet"] or "ok" in shown
    assert "| verdict" in shown


@pytest.mark.long
def test_lifecycle_compares_web_cpu_with_another_checkout(data_dir):
    short = ("--clients", "1", "--seconds", "1", "--rounds", "1")
    found, shown = _measured(data_dir, "lifecycle", "--against", str(BASE_DIR), *short)
    (at,) = found["results"]
    assert at["webCpuRatio"] > 0
    middle, least, most = at["the other one"]["webCpuMs"]
    assert 0 < least <= middle <= most
    assert "ratio of the middle ones" in shown


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        pytest.param(["lifecycle", "--clients", "1,x"], "'x' is no whole number", id="clients"),
        pytest.param(["growth", "--sizes", "1k,2x"], "'2x' is no number of runs", id="sizes"),
        pytest.param(["growth", "--shapes", "burst,x"], "'x' is no shape", id="shapes"),
        pytest.param(["growth", "--rows", "2k,1k"], "is not a smaller and a larger", id="rows"),
        pytest.param(["idle", "--waiters", "0"], "'0' is no whole number", id="waiters"),
        pytest.param(["abuse", "--floods", "rain"], "'rain' is no flood", id="floods"),
        pytest.param(["idle", "--seconds", "nan"], "'nan' is no number of seconds", id="seconds"),
    ],
)
def test_a_bad_argument_is_refused_with_a_sentence(arguments, sentence, capsys):
    with pytest.raises(SystemExit) as refused:
        parse(arguments)
    assert refused.value.code == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.long
def test_bad_arguments_and_settings_are_refused_before_anything_starts(tmp_path, monkeypatch):
    done = _bench("idle", "--waiters", "0", data_dir=tmp_path / "unused")
    assert done.returncode == 2
    assert "'0' is no whole number" in done.stderr
    assert not (tmp_path / "unused").exists()

    monkeypatch.setenv("WEB_THREADS", "many")
    done = _bench("lifecycle", data_dir=tmp_path / "unused")
    assert done.returncode == 1
    assert done.stderr == "WEB_THREADS must be a whole number.\n"
    assert not (tmp_path / "unused").exists()


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([1.0, 1.4], False),
        ([0.1, 0.9], False),  # by less than noise
        ([4.0, 6.1], True),
        ([19.0, 20.5], True),
        ([None, 5.0], False),
        ([7.0], False),
    ],
)
def test_a_page_misses_its_target_when_it_grows_or_is_slow(times, expected):
    assert misses(times) is expected


@pytest.mark.parametrize(
    ("ms", "rows_read", "counted", "verdict"),
    [
        ([1.0, 19.0], [500, 900], [1, 1], ""),
        ([25.0, 1.0], [500, 500], [1, 1], "slow"),
        ([1.0, 1.0], [500, 1500], [1, 1], "reads"),
        ([1.0, 1.0], [1500, 50], [1, 1], "reads"),  # the larger one shows that it need not
        ([1.0, 1.0], [0, 150], [1, 1], ""),  # by less than noise
        ([1.0, 1.0], [500, 5000], [10, 100], ""),  # and so does what the answer adds up
        ([1.0, 99.0], [500, 50_000], [10, 100], "slow, reads"),
    ],
)
def test_a_statement_is_not_to_be_slow_or_read_what_it_does_not_return(
    ms, rows_read, counted, verdict
):
    costs = [{"ms": a, "rowsRead": b} for a, b in zip(ms, rows_read, strict=True)]
    assert judge(costs, counted=counted, most_ms=20.0) == verdict
    assert judge([None, costs[1]], counted=counted, most_ms=100.0) == ""
    assert judge([None, None], counted=counted, most_ms=100.0) == ""


def test_a_shape_whose_statement_breaks_the_rule_fails_the_benchmark(capsys):
    costs = [{"ms": 1.0, "rowsRead": 300}, {"ms": 2.0, "rowsRead": 3000}]
    statement = {"sql": "SELECT 1\nFROM run", "lag": [costs[0], costs[0]], "analysed": costs}
    call = {"shape": "burst", "call": "runs", "mostMs": 20.0, "counted": [1, 1]}
    with pytest.raises(BenchFailed, match=r"^NOT met: .* in burst \(runs\)\.$"):
        show_shapes([{**call, "statements": [statement]}], [1000, 10_000])
    assert "runs: SELECT 1 FROM run" in capsys.readouterr().out
    show_shapes([{**call, "counted": [1, 10], "statements": [statement]}], [1000, 10_000])
    assert "meets its target" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("table", "rows", "found"),
    [
        ("run", 20_000, ["run"]),
        ("audit_entry_2026_11", 20_000, ["audit_entry_2026_11"]),
        ("run", 500, []),
        ("trigger", 20_000, []),
    ],
)
def test_a_ledgers_table_is_not_to_be_read_from_end_to_end(table, rows, found):
    scan = {"Node Type": "Seq Scan", "Relation Name": table, "Actual Rows": 1, "Actual Loops": 1}
    plan = {"Node Type": "Limit", "Plans": [{**scan, "Rows Removed by Filter": rows}]}
    assert sequential_scans(plan) == found


def test_all_has_every_benchmark():
    modules = {parse([name]).benchmark for name in NAMES}
    assert modules == {module for _, module, *_ in everything.PARTS}


def test_figures_that_miss_a_target_are_kept(monkeypatch, capsys):
    class Misses:
        def run(self, *, say):
            return {"figure": 1}

        def show(self, result):
            raise BenchFailed("NOT met.")

    parts: Any = (("first", Misses(), {}, 1),)
    monkeypatch.setattr(everything, "PARTS", parts)
    (found,) = everything.run(say=lambda text: None)["results"].values()
    assert (found["figure"], found["failed"]) == (1, "NOT met.")


def test_one_that_fails_costs_the_others_nothing(capsys, monkeypatch):
    """`bin/bench all` runs the benchmarks one after another, for most of an hour."""

    class Fails:
        def run(self, *, say):
            raise BenchFailed("Nobody answered.")

    class Works:
        def run(self, *, say):
            return {"figure": 1}

        def show(self, result):
            print(result["figure"])

    parts: Any = (("first", Fails(), {}, 1), ("second", Works(), {}, 1))
    monkeypatch.setattr(everything, "PARTS", parts)
    said: list[str] = []
    result = everything.run(say=said.append)
    with pytest.raises(BenchFailed, match=r"^Failed: first\.$"):
        everything.show(result)
    assert capsys.readouterr().out == "## first\n\nFailed: Nobody answered.\n\n## second\n\n1\n\n"
    assert said[-2:] == ["— first, about 1 min", "— second, about 1 min"]


def test_a_quantile_is_one_of_the_values():
    values = [float(n) for n in range(100, 0, -1)]
    assert quantile(values, 0.5) == 50
    assert quantile(values, 0.99) == 99
    assert quantile([7.0], 0.99) == 7
    assert quantile([], 0.5) is None


def test_latencies_of_nothing_are_none():
    assert latencies([]) == {"count": 0, "p50Ms": None, "p99Ms": None}


def test_a_table_lines_up(capsys):
    print_table(["what", "ms"], [["a", 1.23456], ["longer", 12345.6], ["none", None]])
    assert capsys.readouterr().out.splitlines() == [
        "| what   |     ms |",
        "| ------ | -----: |",
        "| a      |   1.23 |",
        "| longer | 12,346 |",
        "| none   |      – |",
    ]
