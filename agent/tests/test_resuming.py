"""A run goes on in the session of an earlier attempt, and never does twice what that attempt has done."""

from __future__ import annotations

import json
import signal
import time
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from pipedai_worker.conformance.fake_api import FakeApi, FakeRun, iso, now

from .conftest import Worker, Workers, until

RESUME: dict[str, Any] = {"retry_mode": "resume"}


def noted(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


def conversations(workers: Workers) -> list[Path]:
    return list(workers.directory.glob(".claude/projects/*/*.jsonl"))


def sessions(workers: Workers) -> list[dict[str, Any]]:
    return workers.files("sessions")


def resumed(api: FakeApi, run: FakeRun, **fields: Any) -> FakeRun:
    """Add the retry of a run, which is to go on in the run's session."""
    assert run.outcome is not None
    session_id = run.outcome["sessionId"]
    return api.add(run.prompt, resume_session_id=session_id, **{**RESUME, **fields})


def test_a_run_goes_on_where_a_usage_limit_stopped_it(api: FakeApi, workers: Workers) -> None:
    before, after = workers.directory / "before", workers.directory / "after"
    lines = (f"note {before}", "rate-limit 600", f"note {after}", "success Finished.")
    run = api.add("\n".join(f"standin: {line}" for line in lines), **RESUME)
    worker = workers.start()
    outcome = api.until_ended(run)
    assert (outcome["status"], outcome["faultClass"]) == ("failed", "infra")
    assert outcome["usageLimit"]["kind"] == "five_hour"
    assert outcome["usageLimit"]["resetsAt"].startswith("20")
    assert conversations(workers)

    retry = resumed(api, run)
    assert api.until_ended(retry)["shortMessage"] == "Finished."
    assert (noted(before), noted(after)) == (1, 1)
    told = [body.get("sessionId") for body in api.bodies("heartbeat", retry)]
    assert set(told) <= {None, outcome["sessionId"]}
    # What the resume needed is gone with its use.
    assert worker.stop() == 0
    assert (sessions(workers), conversations(workers), workers.leftovers()) == ([], [], [])


def test_a_run_goes_on_where_a_kill_stopped_it(api: FakeApi, workers: Workers) -> None:
    before = workers.directory / "before"
    api.lease_seconds = 2
    prompt = f"standin: note {before}\nstandin: sleep 600\nstandin: success Finished."
    run = api.add(prompt, **RESUME)
    worker = workers.start()
    until(lambda: noted(before))
    # A lost run's session is known only if a heartbeat has told it.
    api.until(lambda: any(body.get("sessionId") for body in api.bodies("heartbeat", run)))
    worker.stop(signal.SIGKILL)
    workers.start()
    outcome = api.until_ended(run)
    assert outcome["errorMessage"] == "worker restarted"
    assert outcome["sessionId"] == api.bodies("heartbeat", run)[-1]["sessionId"]
    assert api.until_ended(resumed(api, run))["shortMessage"] == "Finished."
    assert noted(before) == 1


def test_a_session_that_is_not_there_is_judged_by_its_effects(
    api: FakeApi, workers: Workers
) -> None:
    with_none, with_some = limited(api, "with none"), limited(api, "with some")
    api.capacity = 3
    assert workers.start("--once").wait() == 0
    for path in conversations(workers):
        path.unlink()
    for path in (workers.state / "sessions").glob("*.json"):
        content = json.loads(path.read_text())
        content["had_effects"] = content["run_id"] == with_some.id
        path.write_text(json.dumps(content))
    # The first one's files are gone, and nobody has heard of the third one.
    anew, not_anew = resumed(api, with_none), resumed(api, with_some)
    unknown = api.add(resume_session_id=str(uuid4()), **RESUME)
    workers.start()
    assert api.until_ended(anew)["errorMessage"].startswith("Claude's usage limit")
    assert (anew.outcome or {})["sessionId"] != (with_none.outcome or {})["sessionId"]
    for run in (not_anew, unknown):
        outcome = api.until_ended(run)
        # Without a session and with no calls of its own, it is for the API to say whether the run may begin anew.
        assert (outcome["status"], outcome["faultClass"]) == ("failed", "infra")
        assert "(had_effects)" in outcome["errorMessage"]
        assert "sessionId" not in outcome
        assert outcome["toolCalls"]["total"] == 0


def limited(api: FakeApi, text: str) -> FakeRun:
    return api.add(f"{text}\nstandin: rate-limit 600", **RESUME)


def test_a_session_is_kept_as_long_as_the_api_says(api: FakeApi, workers: Workers) -> None:
    later = iso(now() + timedelta(days=365))
    api.capacity = 4
    runs = {
        until: api.add("standin: rate-limit 600", resume_until=until, **RESUME)
        for until in (None, "", later, iso(now()))
    }
    restarted = api.add("standin: rate-limit 600")
    failed = api.add("standin: max-turns", **RESUME)
    worker = workers.start()
    for run in (*runs.values(), restarted, failed):
        api.until_ended(run)
    assert worker.stop() == 0
    kept = {session["run_id"]: session["keep_until"] - time.time() for session in sessions(workers)}
    # Neither a time in the past nor the client's fault keeps anything, and nothing is kept for ever.
    assert set(kept) == {runs[""].id, runs[later].id}
    assert all(8 * 86_400 < seconds <= 8 * 86_400 + 3600 for seconds in kept.values())
    assert len(conversations(workers)) == len(workers.leftovers()) == 2


def test_a_program_that_has_no_sessions_begins_anew_only_without_effects(
    api: FakeApi, workers: Workers
) -> None:
    run = api.add(resume_session_id=str(uuid4()), **RESUME)
    new = api.add(max_cost_usd="2.50", **RESUME)
    seen = workers.directory / "seen"
    workers.start("--command", f"sh -c 'echo $PIPEDAI_MAX_COST_USD > {seen}'")
    assert "(had_effects)" in api.until_ended(run)["errorMessage"]
    assert api.until_ended(new)["status"] == "succeeded"
    assert seen.read_text() == "2.5\n"
    assert sessions(workers) == []


def test_a_retry_waits_for_the_attempt_that_it_replaces(api: FakeApi, workers: Workers) -> None:
    """The API has given a run up, and its worker, which was cut off, learns of that and of the retry at once."""
    api.capacity, api.lease_seconds = 2, 2
    before = workers.directory / "before"
    prompt = f"standin: note {before}\nstandin: sleep 600\nstandin: success Finished."
    run = api.add(prompt, **RESUME)
    worker: Worker = workers.start()
    api.until(lambda: any(body.get("sessionId") for body in api.bodies("heartbeat", run)))
    session_id = api.bodies("heartbeat", run)[-1]["sessionId"]
    until(lambda: noted(before))
    with api.lock:
        run.status = "failed"
    retry = api.add(prompt, resume_session_id=session_id, **RESUME)
    assert api.until_ended(retry)["shortMessage"] == "Finished."
    assert api.count("complete", run) == 0
    assert noted(before) == 1
    assert worker.stop() == 0
