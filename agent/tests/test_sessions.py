"""What a resume needs is kept within bounds, in place, and only as long as it may be used."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from pipedai_worker.commands import STAND_IN
from pipedai_worker.disk import durable, sessions
from pipedai_worker.disk.durable import Scratch
from pipedai_worker.disk.sessions import Session, Sessions
from pipedai_worker.executors.claude import ClaudeExecutor

UNKNOWN = "0198c0de-0000-7000-8000-000000000000"
CALLS = {"total": 0, "effects": 0, "unknown": 0}


@pytest.fixture
def executor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClaudeExecutor:
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(tmp_path / "claude"))
    return ClaudeExecutor(STAND_IN, auth_mode=lambda: "claude_max", silence_seconds=0)


@pytest.fixture
def kept(tmp_path: Path) -> Sessions:
    return Sessions(tmp_path / "sessions")


def begun(kept: Sessions, executor: ClaudeExecutor, tmp_path: Path, size: int = 10) -> Session:
    """Begin a session with a conversation of so many bytes, and return it."""
    place = Scratch()
    session = Session(str(uuid4()), str(uuid4()), str(place.root))
    work = str(place.work).translate(str.maketrans("/_", "--"))
    conversation = tmp_path / "claude" / "projects" / work / f"{session.id}.jsonl"
    conversation.parent.mkdir(parents=True)
    conversation.write_text("x" * size)
    kept.begin(session)
    assert executor.session_files(session.id, session.work)
    return session


def conversations(tmp_path: Path) -> int:
    return len(list((tmp_path / "claude").rglob("*.jsonl")))


def test_a_session_that_is_too_large_leaves_only_what_is_known_of_it(
    kept: Sessions, executor: ClaudeExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "LARGEST_BYTES", 10_000)
    session = begun(kept, executor, tmp_path, size=20_000)
    called = [{"tool": "pay", "outcome": "unknown"}, {"tool": "look", "outcome": "ok"}]
    assert not kept.keep(session.after({**CALLS, "effects": 1}, called), executor)
    (known,) = kept.all()
    assert (known.root, known.had_effects, known.unanswered) == ("", True, ("pay",))
    assert conversations(tmp_path) == 0
    assert not Path(session.root).exists()


def test_the_oldest_sessions_make_room(
    kept: Sessions, executor: ClaudeExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "MOST_KEPT", 2)
    monkeypatch.setattr(sessions, "MOST_KNOWN", 3)
    made = [begun(kept, executor, tmp_path) for _ in range(5)]
    in_use = begun(kept, executor, tmp_path)
    for session in made:
        assert kept.keep(session, executor)
        time.sleep(0.002)
    found = {session.id: session for session in kept.all()}
    assert found.keys() == {in_use.id, *(session.id for session in made[2:])}
    assert [bool(found[session.id].root) for session in made[2:]] == [False, True, True]
    assert conversations(tmp_path) == 3
    for session in (*made, in_use):
        durable.remove_tree(Path(session.root))


def test_a_session_goes_when_its_time_is_over_but_not_while_it_is_used(
    kept: Sessions, executor: ClaudeExecutor, tmp_path: Path
) -> None:
    idle, used = begun(kept, executor, tmp_path), begun(kept, executor, tmp_path)
    kept.keep(idle, executor)
    kept.learn_end(idle.run_id, 3600, executor)
    kept.learn_end(used.run_id, None, executor)
    kept.tidy(executor, time.time() + 3590)
    assert len(kept.all()) == 2
    kept.tidy(executor, time.time() + 3610)
    assert [session.id for session in kept.all()] == [used.id]
    kept.tidy(executor, time.time() + 9 * 86_400)
    assert conversations(tmp_path) == 1
    kept.forget(used.id, executor)
    assert (kept.all(), conversations(tmp_path)) == ([], 0)
    assert not Path(idle.root).exists()
    assert not Path(used.root).exists()


def test_one_run_at_a_time_has_a_session(
    kept: Sessions, executor: ClaudeExecutor, tmp_path: Path
) -> None:
    session = begun(kept, executor, tmp_path)
    assert kept.take(session.id, "another run", lambda: True) is None
    kept.keep(session, executor)
    taken = kept.take(session.id, "another run", lambda: True)
    assert taken is not None
    assert (taken.run_id, taken.in_use) == ("another run", True)
    assert kept.take(session.id, "a third run", lambda: True) is None
    # The report of the first run comes late, and no longer decides about the session.
    kept.learn_end(session.run_id, None, executor)
    assert len(kept.all()) == 1
    kept.forget(session.id, executor)


@pytest.mark.parametrize("session_id", ["", "../../etc/passwd", "no uuid", UNKNOWN])
def test_only_sessions_of_this_worker_are_found(kept: Sessions, session_id: str) -> None:
    assert kept.take(session_id, "run", lambda: True) is None


def test_a_directory_that_somebody_else_could_enter_is_not_used_again(tmp_path: Path) -> None:
    place = Scratch()
    (place.work / "file").write_text("kept")
    (place.files / "file").write_text("not kept")
    durable.strip(place.root)
    again = Scratch(place.root)
    assert (again.work / "file").read_text() == "kept"
    assert list(again.files.iterdir()) == []
    place.root.chmod(0o755)
    with pytest.raises(PermissionError):
        Scratch(place.root)
    durable.remove_tree(again.root)
    # A directory that is gone is made again, at the same path, where claude looks for the session.
    durable.remove_tree(Scratch(place.root).root)
    elsewhere = tmp_path / f"{durable.PREFIX}x"
    elsewhere.symlink_to(tmp_path)
    with pytest.raises(OSError, match="ermission"):
        Scratch(elsewhere)


def test_unanswered_calls_add_up_and_count_as_effects() -> None:
    session = Session("s", "r", "/x")
    assert session.after({**CALLS, "total": 1}, [{"tool": "a", "outcome": "ok"}]) == session
    one = {"total": 1, "effects": 0, "unknown": 1}
    first = session.after(one, [{"tool": "a", "outcome": "unknown"}])
    second = first.after(CALLS, [{"tool": name, "outcome": "unknown"} for name in "ba"])
    assert second == replace(session, unanswered=("a", "b"), had_effects=True)


def test_a_later_limit_of_the_worker_keeps_a_session_longer(
    kept: Sessions, executor: ClaudeExecutor, tmp_path: Path
) -> None:
    session = begun(kept, executor, tmp_path)
    kept.keep(session, executor)
    kept.learn_end(session.run_id, 60, executor)
    kept.keep_while_limited(5 * 3600)
    kept.tidy(executor, time.time() + 6 * 3600 - 10)
    assert len(kept.all()) == 1
    kept.tidy(executor, time.time() + 6 * 3600 + 10)
    assert (kept.all(), conversations(tmp_path)) == ([], 0)


def test_the_session_of_a_run_that_waits_is_never_removed_to_make_room(
    kept: Sessions, executor: ClaudeExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "MOST_KEPT", 2)
    waiting = [begun(kept, executor, tmp_path) for _ in range(2)]
    for session in waiting:
        assert kept.make_room(session.id, executor, "pay", {"pay"})
        assert kept.keep(replace(session, waits=True), executor)
    # There is no room for a third one that waits, and later ones do not displace these two.
    other = begun(kept, executor, tmp_path)
    assert not kept.make_room(other.id, executor, "pay", set())
    assert not kept.keep(other, executor)
    found = {session.id: session for session in kept.all()}
    assert [(found[each.id].deferred, found[each.id].with_effect) for each in waiting] == [
        (True, ("pay",))
    ] * 2
    assert all(found[each.id].root for each in waiting)
    # The API tells until when somebody can decide. The run may come back up to an hour later.
    kept.learn_end(waiting[0].run_id, 60, executor, waits=True)
    kept.tidy(executor, time.time() + 3600)
    assert waiting[0].id in {session.id for session in kept.all()}
    kept.tidy(executor, time.time() + 3700)
    assert waiting[0].id not in {session.id for session in kept.all()}
