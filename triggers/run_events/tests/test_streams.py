"""Streams of runs and environments work end to end, with the real server and a real database."""

import contextlib
import json
import socket
import threading
import time

import httpx
from django.db.models.functions import Now

from accounts.models import Session
from pipedai.api.views import MAX_STREAMS
from pipedai.sql import database_now
from testing.processes.web_process import serve
from testing.world.cast import session_cookie
from testing.world.runs import Runs, allow
from triggers.run_events.reading import page_of_events

# A busy machine may take this long.
PATIENCE_SECONDS = 60


class Reader:
    """Reads an event stream."""

    def __init__(self, response):
        self.response = response
        self._lines = response.iter_lines()

    def event(self):
        """Waits for the next event, and returns its id, its name and its data."""
        fields = {}
        for line in self._lines:
            name, _, value = line.partition(": ")
            if line and name:
                fields[name] = value
            elif not line and fields:
                return fields.get("id"), fields.get("event"), json.loads(fields["data"])
        raise EOFError

    def ids(self, count):
        return [int(self.event()[0]) for _ in range(count)]

    def rest(self):
        """Reads until the stream ends, and returns the names of the last events."""
        names = []
        with contextlib.suppress(EOFError):
            while True:
                names.append(self.event()[1])
        return names


class World:
    """A served API, and runs of the cast that record events."""

    def __init__(self, cast, server):
        self.cast, self.server = cast, server
        allow(cast.worker.worker_id, 50)
        trigger = cast.add_trigger(record_events="always")
        self.runs = Runs(cast, trigger, now=database_now())
        self.key = {"Authorization": f"Bearer {cast.mint('pwk')}"}

    def send(self, run, *seqs, server=None, **event):
        told = {"at": "2026-05-04T12:00:00.000Z", "type": "text", **event}
        path = f"/workers/{self.cast.worker.worker_id}/runs/{run}/events"
        return httpx.post(
            (server or self.server).api + path,
            json={"events": [{"seq": seq, **told} for seq in seqs]},
            headers={"Authorization": f"Bearer {self.cast.worker.worker_token}"},
            timeout=PATIENCE_SECONDS,
        )

    def run_path(self, run):
        return f"/runs/{run}/events/stream"

    @property
    def environment_path(self):
        return f"/environments/{self.cast.environment.id}/events/stream"

    def by(self, user):
        """Returns the headers of this user's browser."""
        return {"Cookie": f"auth_token={session_cookie(user)}"}

    @contextlib.contextmanager
    def stream(self, path, headers=None, status=200):
        with httpx.stream(
            "GET",
            self.server.api + path,
            headers=headers or self.key,
            timeout=PATIENCE_SECONDS,
        ) as response:
            assert response.status_code == status
            reader = Reader(response)
            if status == 200:
                assert next(reader._lines).startswith(":")
                assert next(reader._lines) == ""
            yield reader


def test_streams_tell_and_end_in_time(committed_cast, own_database, tmp_path):
    """This is one test, because starting a server takes longer than all the requests here."""
    with serve(own_database, log=tmp_path / "web.log") as server:
        world = World(committed_cast, server)
        _events_come_as_they_are_sent_and_the_stream_ends_with_its_run(world)
        _readers_of_one_run_get_the_same_whenever_they_come(world)
        _changes_of_the_environment_are_told_to_a_viewer(world)
        _nobody_has_more_than_twenty(world)
        _a_reader_that_does_not_read_holds_up_nobody(world)
        _a_demoted_members_stream_ends_at_once(world)
        _a_removed_members_streams_end_at_once(world)
        _an_expired_sessions_stream_ends(world)
        _events_outlive_a_web_process_that_is_killed(world, own_database, tmp_path / "dying.log")


def _events_come_as_they_are_sent_and_the_stream_ends_with_its_run(world):
    run = world.runs.running()
    world.send(run, 1, 2)
    with world.stream(world.run_path(run)) as reader:
        assert reader.response.headers["content-type"].startswith("text/event-stream")
        assert reader.ids(2) == [1, 2]
        world.send(run, 3)
        assert reader.event() == (
            "3",
            None,
            {
                "seq": 3,
                "at": "2026-05-04T12:00:00.000Z",
                "type": "text",
                "text": None,
                "data": None,
            },
        )
        world.runs.complete(run)
        assert reader.event()[1:] == ("status", {"status": "succeeded"})
        world.send(run, 4)
        assert reader.ids(1) == [4]
        assert reader.event()[1:] == ("end", {"status": "succeeded"})
        assert reader.rest() == []
    with world.stream(
        world.run_path(run), {**world.key, "Last-Event-ID": "4"}, status=204
    ) as reader:
        assert reader.rest() == []


def _readers_of_one_run_get_the_same_whenever_they_come(world):
    run, other = world.runs.running(), world.runs.running()
    with (
        world.stream(world.run_path(run)) as first,
        world.stream(world.run_path(other)) as of_other,
        world.stream(world.run_path(run), world.by(world.cast.operator)) as second,
    ):
        for seq in range(1, 6):
            world.send(run, seq)
            world.send(other, seq)
        with world.stream(world.run_path(run)) as late:
            world.send(run, 6, text="x" * 100_000)
            world.send(run, *range(7, 30))
            for reader in (first, second, late):
                assert reader.ids(29) == list(range(1, 30))
        assert of_other.ids(5) == list(range(1, 6))
    world.runs.complete(run)
    world.runs.complete(other)


def _changes_of_the_environment_are_told_to_a_viewer(world):
    cast = world.cast
    trigger = f"{world.server.api}/triggers/{world.runs.trigger_id}/run"
    with world.stream(world.environment_path, world.by(cast.viewer)) as reader:
        run = httpx.post(trigger, json={}, headers=world.key, timeout=PATIENCE_SECONDS).json()["id"]
        assert reader.event()[2] == {"type": "run", "id": run, "status": "queued"}
        httpx.post(
            f"{world.server.api}/runs/{run}/cancel", headers=world.key, timeout=PATIENCE_SECONDS
        )
        told = [reader.event()[2]]
        while told[-1]["type"] != "run":
            told.append(reader.event()[2])
        assert told[-1] == {"type": "run", "id": run, "status": "canceled"}


def _nobody_has_more_than_twenty(world):
    run = world.runs.running()
    with contextlib.ExitStack() as stack:
        for _ in range(MAX_STREAMS):
            stack.enter_context(world.stream(world.run_path(run)))
        with world.stream(world.environment_path, status=429) as refused:
            assert refused.response.headers["retry-after"]
        other = world.by(world.cast.operator)
        stack.enter_context(world.stream(world.environment_path, other))
    world.runs.complete(run)


def _a_reader_that_does_not_read_holds_up_nobody(world):
    run = world.runs.running()
    request = (
        f"GET /api/v1{world.run_path(run)} HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: {world.key['Authorization']}\r\n\r\n"
    ).encode()
    address = httpx.URL(world.server.url)
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            silent = stack.enter_context(socket.socket())
            silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            silent.connect((address.host, address.port))
            silent.sendall(request)
        with world.stream(world.run_path(run), world.by(world.cast.operator)) as reader:
            for seq in range(1, 11):
                assert world.send(run, seq, text="x" * 200_000).status_code == 200
            assert reader.ids(10) == list(range(1, 11))
    world.runs.complete(run)


def _a_demoted_members_stream_ends_at_once(world):
    cast = world.cast
    run = world.runs.running()
    with world.stream(world.run_path(run), world.by(cast.operator)) as reader:
        _as_owner(world, "PATCH", cast.operator, json={"role": "viewer"})
        _ends_soon(reader)
    world.runs.complete(run)


def _a_removed_members_streams_end_at_once(world):
    cast = world.cast
    run = world.runs.running()
    with (
        world.stream(world.run_path(run), world.by(cast.admin)) as of_run,
        world.stream(world.environment_path, world.by(cast.admin)) as of_environment,
    ):
        _as_owner(world, "DELETE", cast.admin)
        _ends_soon(of_run)
        _ends_soon(of_environment)
    world.runs.complete(run)


def _as_owner(world, method, user, **body):
    cast = world.cast
    url = f"{world.server.api}/environments/{cast.environment.id}/members/{user.id}"
    headers = {**world.by(cast.owner), "Sec-Fetch-Site": "same-origin"}
    answer = httpx.request(method, url, headers=headers, timeout=PATIENCE_SECONDS, **body)
    assert answer.is_success


def _ends_soon(reader):
    """Reads until the stream ends, which is sooner than it would be noticed without a notification."""
    began = time.monotonic()
    reader.rest()
    assert time.monotonic() - began < 9


def _an_expired_sessions_stream_ends(world):
    run = world.runs.running()
    with world.stream(world.run_path(run), world.by(world.cast.owner)) as reader:
        Session.objects.filter(user=world.cast.owner).update(expires_at=Now())
        assert reader.rest() == []
    world.runs.complete(run)


def _events_outlive_a_web_process_that_is_killed(world, own_database, log):
    living = world.server
    with serve(own_database, log=log) as dying:
        world.server = dying
        run = world.runs.running()
        acknowledged = threading.Event()
        last = 60

        def sends():
            """Sends as a worker does: what was not acknowledged is sent again, to the process that is left."""
            seq, server = 1, dying
            while seq <= last:
                try:
                    answer = world.send(run, *range(seq, min(seq + 2, last + 1)), server=server)
                    seq = answer.json()["nextSeq"]
                except httpx.HTTPError:
                    server = living
                if seq > last // 3:
                    acknowledged.set()

        sender = threading.Thread(target=sends)
        read = []
        with (
            contextlib.suppress(httpx.HTTPError, EOFError),
            world.stream(world.run_path(run)) as reader,
        ):
            sender.start()
            assert acknowledged.wait(PATIENCE_SECONDS)
            dying.kill()
            while True:
                read += reader.ids(1)
        world.server = living
        with world.stream(
            world.run_path(run), {**world.key, "Last-Event-ID": str(read[-1] if read else 0)}
        ) as reader:
            read += reader.ids(last - len(read))
        sender.join(PATIENCE_SECONDS)
        assert read == list(range(1, last + 1))
        stored = page_of_events(run, after=0, limit=1000, most_bytes=2**30)
        assert [event.seq for event in stored.events] == read
