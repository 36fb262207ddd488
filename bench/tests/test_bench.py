"""Runs a short version of each benchmark, and checks its output. It does not judge the figures."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench import __main__ as command
from bench.figures import latencies, print_table, quantile
from bench.growth.benchmark import misses
from bench.growth.verdicts import judge, show_shapes
from bench.kill.siege import VICTIMS
from bench.lifecycle import CALLS, SHORT_CALLS
from bin.suite import new_data_dir
from console.tests.screens import SCREENS
from pipedai.env import BASE_DIR
from testing.probes.plan_nodes import sequential_scans
from testing.processes.failure import ProcessFailed
from triggers.runs.stats import GROUPINGS

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


def _measured(data_dir: Path, words: str, may_miss: bool = False) -> tuple[dict[str, Any], str]:
    """Runs a benchmark, checks that nothing is left of its database, and returns what it wrote and printed.

    With `may_miss` it may miss its targets, which means nothing on a machine with other work. If it asks for more
    time, it gets five times as much, once."""
    file = data_dir.parent / "result.json"
    arguments = words.split()
    done = _bench(*arguments, "--json", str(file), data_dir=data_dir)
    if done.stderr.endswith(_TOO_SHORT):
        at = arguments.index("--seconds") + 1
        arguments[at] = str(5 * int(arguments[at]))
        done = _bench(*arguments, "--json", str(file), data_dir=data_dir)
    missed = may_miss and done.stderr.splitlines()[-1].startswith("NOT met: ")
    assert done.returncode == int(missed), done.stderr
    assert not list(data_dir.iterdir())
    found = json.loads(file.read_text())
    assert found["benchmark"] == arguments[0]
    print(done.stdout)  # so that a seed is in the output of a failed test
    return found, done.stdout


@pytest.mark.long
def test_lifecycle_measures_both_protocols_beside_bare_sql(data_dir):
    found, shown = _measured(data_dir, "lifecycle --clients 1,2 --seconds 1")
    assert {"cores", "python", "postgres", "loadBefore"} <= set(found["machine"])
    assert [at["clients"] for at in found["results"]] == [1, 2]
    for at in found["results"]:
        assert at["bareSql"]["lifecyclesPerSecond"] > 0
        for name, calls in (("http", CALLS), ("short", SHORT_CALLS)):
            figures = at[name]
            assert list(figures["calls"]) == list(calls)
            assert figures["ofBareSql"] > 0
            for each in (figures["lifecycle"], *figures["calls"].values()):
                assert each["count"] == figures["lifecycle"]["count"]
                assert 0 <= each["p50Ms"] <= each["p99Ms"]
            # A short measurement may find no CPU time, which Linux counts in hundredths of a second.
            assert min(figures[each] for each in ("webCpuMs", "postgresCpuMs", "loadCpuMs")) >= 0
            assert figures["webRssMb"] > 0
    assert all(f"| {call}" in shown for call in (*CALLS, *SHORT_CALLS))


@pytest.mark.long
def test_idle_measures_waiting_and_waking(data_dir):
    found, shown = _measured(data_dir, "idle --waiters 5 --seconds 2")
    each = {"webMemoryKb", "webCpuMsPerMinute", "postgresCpuMsPerMinute"}
    assert set(found["perWaiter"]) == each
    created, handed_out = found["wakeUp"]["created"], found["wakeUp"]["handedOut"]
    assert created["count"] == handed_out["count"] == 5
    assert 0 < handed_out["p50Ms"] <= handed_out["p99Ms"]
    assert set(found["otherCalls"]) == {"nobodyWaits", "allWait", "eachWakes"}
    assert found["otherCalls"]["allWait"]["count"] > 0
    assert "its worker has it" in shown


@pytest.mark.long
def test_each_event_that_is_taken_queues_a_run(data_dir):
    found, _ = _measured(data_dir, "events-in --rate 30 --clients 1 --seconds 2")
    assert found["events"]["count"] > 0


@pytest.mark.long
def test_neighbours_has_a_figure_of_each_kind_beside_a_flood(data_dir):
    found, shown = _measured(data_dir, "neighbours --seconds 1 --only windows", may_miss=True)
    assert set(found["figures"]) == {"quiet", "2,000 budgets' windows"}
    for figures in found["figures"].values():
        assert figures["calls"] > 0
        assert min(figures[each] for each in ("p99", "due", "decided", "told")) > 0
    assert "due s later" in shown


@pytest.mark.long
def test_growth_looks_at_every_list_and_at_shapes_and_keeps_each_plan(data_dir):
    short = "growth --sizes 1k --month 1000 --repeats 1 --values 1"
    shape = "--shapes many-budgets --rows 1k,2k"
    found, shown = _measured(data_dir, f"{short} {shape}", may_miss=True)
    (at,) = found["results"]
    assert at["runs"] == 1000
    assert "at 1,000 runs a month" in shown
    assert {"overview", *(f"statistics by {each}" for each in GROUPINGS)} == at["busyMonth"].keys()
    pages = at["pages"]
    assert {"poll", "overview", "a whole lifecycle", "firing 100 due triggers"} <= pages.keys()
    for name in ("runs", "ticks", "deliveries", "audit log", "triggers", "workers"):
        assert {name, f"{name}, deep"} <= pages.keys()
    assert {"runs?status=queued", "admin: runs"} <= pages.keys()
    # The list of an environment is looked at by each of its filters.
    in_it = [name.split("&") for name in pages if name.startswith("admin: runs?environment&")]
    filters = {word.partition("=")[0] for _, *words in in_it for word in words}
    assert {"failures", "source__exact", "status__exact", "unfinished"} <= filters
    for page in (*pages.values(), *at["busyMonth"].values()):
        assert page["ms"] > 0
        statements = [each for each in page["statements"] if each["plan"] is not None]
        assert len(statements) >= len(page["statements"]) - 1
    calls = {call["call"]: call for call in found["shapes"]}
    assert calls.keys() == {"finding reached budgets", "budgets", "triggers"}
    statements = calls["finding reached budgets"]["statements"]
    (reads,) = (each for each in statements if "least_amount" in each["sql"])
    for cost in (*reads["lag"], *reads["analysed"]):
        assert min(cost["ms"], cost["rowsRead"]) > 0
        assert cost["plan"]["Plans"]
    assert "Shape many-budgets, 1,000 → 2,000 rows" in shown


@pytest.mark.long
def test_console_measures_each_screen(data_dir):
    found, _ = _measured(data_dir, "console --triggers 10 --runs 20 --repeats 1")
    assert [each["name"] for each in found["screens"]] == [each.name for each in SCREENS]
    measured = {each["name"]: each for each in found["screens"]}
    assert len(measured["trigger"]["calls"]) == 8
    assert measured["trigger"]["statements"] > 0
    assert 0 < found["assetsKb"] < measured["trigger"]["kb"] < 60


@pytest.mark.long
def test_firing_measures_triggers_that_come_due_each_second(data_dir):
    short = "firing --triggers 120 --each-second 20 --seconds 3 --schedulers 1"
    found, _ = _measured(data_dir, short)
    lag = found["lag"]["20 each second"]
    assert lag["count"] == 60
    assert 0 < lag["p50Ms"] <= lag["p99Ms"]
    assert lag["schedulerCpuMs"] >= 0


@pytest.mark.long
def test_every_run_ends_once_whatever_is_killed(data_dir):
    found, _ = _measured(data_dir, "kill --runs 50 --seconds 9")
    assert found["attempts"] >= found["runs"] == 50
    assert found["interruptedInHand"] > 0
    assert found["reservationsSettled"] > 50
    assert found["lostInAPoolAndDoneByAnother"] > 0
    assert found["kills"].keys() == set(VICTIMS)
    assert min(found["kills"].values()) > 0


@pytest.mark.long
@pytest.mark.usefixtures("_few_threads")
def test_a_failover_loses_no_run_and_doubles_none(data_dir):
    found, _ = _measured(data_dir, "kill --failover --runs 15 --seconds 5")
    assert found["attempts"] == found["runs"] == 15
    assert found["leasesLost"] == 0
    assert found["longestSecondsWithoutService"] > 0
    for failover in found["failovers"]:
        assert max(failover[name] for name in ("web", "scheduler", "listen")) <= 5


@pytest.mark.long
@pytest.mark.usefixtures("_few_threads")
def test_an_outage_ends_no_healthy_run_and_hides_no_dead_worker(data_dir):
    found, _ = _measured(data_dir, "kill --outage 4 15")
    assert {(each["part"], each["seconds"]) for each in found["outages"]} == {
        (part, seconds) for part in ("database", "web", "scheduler") for seconds in (4, 15)
    }
    assert 4 < found["leaseSeconds"] < 15
    assert found["runs"] == 6 * (6 + 1)
    assert found["leasesLost"] == 6  # of the dead workers
    assert found["succeeded"] == found["runs"]
    assert found["executed"] == found["runs"] + 6


def test_a_bad_argument_is_refused_with_a_sentence(capsys):
    for words, sentence in (
        ("lifecycle --clients 1,x", "'x' is no whole number"),
        ("growth --sizes 1k,2x", "'2x' is no whole number"),
        ("growth --shapes burst,x", "'x' is no shape"),
        ("growth --rows 2k,1k", "is not a smaller and a larger"),
        ("idle --waiters 0", "'0' is no whole number"),
        ("idle --seconds nan", "'nan' is no number of seconds"),
    ):
        with pytest.raises(SystemExit) as refused:
            command.parse(words.split())
        assert refused.value.code == 2
        assert sentence in capsys.readouterr().err, words


@pytest.mark.long
def test_bad_settings_are_refused_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setenv("WEB_THREADS", "many")
    done = _bench("lifecycle", data_dir=tmp_path / "unused")
    assert done.returncode == 1
    assert done.stderr == "WEB_THREADS must be a whole number.\n"
    assert not (tmp_path / "unused").exists()


def test_a_page_misses_its_target_when_it_grows_or_is_slow():
    for times, expected in (
        ([1.0, 1.4], False),
        ([0.1, 0.9], False),  # by less than noise
        ([4.0, 6.1], True),
        ([19.0, 20.5], True),
        ([None, 5.0], False),
        ([7.0], False),
    ):
        assert misses(times) is expected, times


def test_a_statement_is_not_to_be_slow_or_read_what_it_does_not_return():
    for ms, rows_read, counted, verdict in (
        ([1.0, 19.0], [500, 900], [1, 1], ""),
        ([25.0, 1.0], [500, 500], [1, 1], "slow"),
        ([1.0, 1.0], [500, 1500], [1, 1], "reads"),
        ([1.0, 1.0], [1500, 50], [1, 1], "reads"),  # the larger one shows that it need not
        ([1.0, 1.0], [0, 150], [1, 1], ""),  # by less than noise
        ([1.0, 1.0], [500, 5000], [10, 100], ""),  # and so does what the answer adds up
        ([1.0, 99.0], [500, 50_000], [10, 100], "slow, reads"),
    ):
        costs = [{"ms": a, "rowsRead": b} for a, b in zip(ms, rows_read, strict=True)]
        assert judge(costs, counted=counted, most_ms=20.0) == verdict, (ms, rows_read)
        assert judge([None, costs[1]], counted=counted, most_ms=100.0) == ""


def test_a_shape_whose_statement_breaks_the_rule_fails_the_benchmark(capsys):
    costs = [{"ms": 1.0, "rowsRead": 300}, {"ms": 2.0, "rowsRead": 3000}]
    statement = {"sql": "SELECT 1\nFROM run", "lag": [costs[0], costs[0]], "analysed": costs}
    call = {"shape": "burst", "call": "runs", "mostMs": 20.0, "counted": [1, 1]}
    with pytest.raises(ProcessFailed, match=r"^NOT met: .* in burst \(runs\)\.$"):
        show_shapes([{**call, "statements": [statement]}], [1000, 10_000])
    assert "runs: SELECT 1 FROM run" in capsys.readouterr().out
    show_shapes([{**call, "counted": [1, 10], "statements": [statement]}], [1000, 10_000])
    assert "meets its target" in capsys.readouterr().out


def test_a_ledgers_table_is_not_to_be_read_from_end_to_end():
    for table, rows, is_found in (
        ("run", 20_000, True),
        ("audit_entry_2026_11", 20_000, True),
        ("run", 500, False),
        ("trigger", 20_000, False),
    ):
        scan = {"Node Type": "Seq Scan", "Relation Name": table, "Actual Rows": 1}
        plan = {"Node Type": "Limit", "Plans": [{**scan, "Rows Removed by Filter": rows}]}
        assert sequential_scans(plan) == [table] * is_found


def test_one_that_fails_costs_the_others_nothing_and_its_figures_are_kept(capsys, monkeypatch):
    """`bin/bench all` runs the benchmarks one after another, for most of an hour."""

    def fails(result):
        raise ProcessFailed("NOT met.")

    def benchmark(show, *arguments):
        return SimpleNamespace(
            IN_ALL=arguments,
            add_options=lambda parser: parser.add_argument("--figure", type=int, default=1),
            run=lambda *, figure, say: {"machine": {}, "measured": figure},
            show=show,
        )

    both = {"bad": benchmark(fails, ""), "good": benchmark(lambda result: None, "--figure 2")}
    monkeypatch.setattr(command, "BENCHMARKS", both)
    monkeypatch.setattr(command, "print_machine", lambda machine: None)
    result: dict[str, Any] = {}
    with pytest.raises(ProcessFailed, match=r"^Failed: bad\.$"):
        command.measure_all(result)
    bad, good = result["results"]["bad"], result["results"]["good --figure 2"]
    assert (bad["measured"], bad["failed"]) == (1, "NOT met.")
    assert (good["measured"], "failed" in good) == (2, False)
    assert "Failed: NOT met." in capsys.readouterr().out


def test_a_quantile_is_one_of_the_values():
    values = [float(n) for n in range(100, 0, -1)]
    assert quantile(values, 0.5) == 50
    assert quantile(values, 0.99) == 99
    assert quantile([7.0], 0.99) == 7
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
