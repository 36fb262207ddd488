"""Event streams work end to end, with the real server and a real database."""

import contextlib
import json
import socket

import httpx

from pipedai.api.views import MAX_STREAMS
from testing.processes.web_process import serve
from testing.processes.worker_process import until
from workers.models import Worker

# A busy machine may take this long. The tests of pipedai/server show that events come at once.
PATIENCE_SECONDS = 60


class Reader:
    """Reads an event stream."""

    def __init__(self, response):
        self.response = response
        self._lines = response.iter_lines()

    def event(self):
        """Waits for the next event and returns its id and its data."""
        fields = {}
        for line in self._lines:
            name, _, value = line.partition(": ")
            if line and name:
                fields[name] = value
            elif not line and fields:
                return fields["id"], json.loads(fields["data"])
        raise EOFError

    def ends(self):
        """Reads until the stream ends."""
        for _ in self._lines:
            pass


def asked(server, host, **headers):
    url = f"{server.api}/workers/{host.worker_id}/events/stream"
    auth = {"Authorization": f"Bearer {host.operator_token}", "Accept": "text/event-stream"}
    return httpx.stream("GET", url, headers={**auth, **headers}, timeout=PATIENCE_SECONDS)


@contextlib.contextmanager
def stream(server, host, **headers):
    with asked(server, host, **headers) as response:
        assert response.status_code == 200
        # The first line has come, so the stream tells of everything that happens from now on.
        reader = Reader(response)
        assert next(reader._lines).startswith(":")
        assert next(reader._lines) == ""
        yield reader


def change(cast, worker_id, value):
    url = f"/api/v1/workers/{worker_id}"
    answer = cast.client(cast.owner).patch(url, {"maxConcurrency": value})
    assert answer.status_code == 200


def test_streams_tell_replay_hold_up_nobody_and_end_in_time(committed_cast, own_database, tmp_path):
    """This is one test, because starting a server takes longer than all the requests here."""
    cast = committed_cast
    first, second, third, fourth = (cast.host(f"host-{n}") for n in range(4))
    with contextlib.ExitStack() as stack:
        with serve(own_database, log=tmp_path / "web.log") as server:
            _a_refusal_is_json_whatever_is_accepted(server, first)
            _events_are_told_and_again_after_the_last_that_was_read(cast, server, first)
            _fifteen_that_nobody_reads_hold_up_nothing(cast, server, first)
            _a_key_has_twenty_at_once(server, fourth, third)
            _it_ends_when_its_worker_is_deleted(cast, server, first)
            _it_ends_when_its_key_dies(cast, server, second)
            readers = [stack.enter_context(stream(server, third)) for _ in range(3)]
        for reader in readers:
            reader.ends()  # the stream ends cleanly with the server: a cut connection would raise


def _a_refusal_is_json_whatever_is_accepted(server, host):
    url = f"{server.api}/workers/{host.worker_id}/events/stream"
    answer = httpx.get(url, headers={"Accept": "text/event-stream"})
    assert (answer.status_code, answer.json()) == (
        401,
        {"error": "Authentication is required.", "code": "unauthenticated"},
    )


def _events_are_told_and_again_after_the_last_that_was_read(cast, server, host):
    with stream(server, host) as reader:
        assert reader.response.headers["content-type"].startswith("text/event-stream")
        assert reader.response.headers["x-accel-buffering"] == "no"
        change(cast, host.worker_id, 2)
        event_id, data = reader.event()
        assert (data["type"], data["maxConcurrency"]) == ("concurrency.changed", 2)
        assert data["workerId"] == str(host.worker_id)
    change(cast, host.worker_id, 3)
    with stream(server, host, **{"Last-Event-ID": event_id}) as reader:
        assert reader.event()[1]["maxConcurrency"] == 3


def _fifteen_that_nobody_reads_hold_up_nothing(cast, server, host):
    request = (
        f"GET /api/v1/workers/{host.worker_id}/events/stream HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: Bearer {host.operator_token}\r\n\r\n"
    ).encode()
    address = httpx.URL(server.url)
    with contextlib.ExitStack() as stack:
        for _ in range(15):
            silent = stack.enter_context(socket.create_connection((address.host, address.port)))
            silent.sendall(request)
        with stream(server, host) as reader:
            change(cast, host.worker_id, 4)
            assert reader.event()[1]["maxConcurrency"] == 4
        assert httpx.get(f"{server.api}/health", timeout=PATIENCE_SECONDS).status_code == 200


def _a_key_has_twenty_at_once(server, host, other):
    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(stream(server, host)) for _ in range(MAX_STREAMS)]
        with asked(server, host) as refused:
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
            assert json.loads(refused.read())["code"] == "throttled"
        stack.enter_context(stream(server, other))
        readers[0].response.close()

        def is_granted():
            with asked(server, host) as again:
                return again.status_code == 200

        until(is_granted)


def _it_ends_when_its_worker_is_deleted(cast, server, host):
    with stream(server, host) as reader:
        url = f"/api/v1/workers/{host.worker_id}"
        assert cast.client(cast.owner).delete(url).status_code == 204
        reader.ends()


def _it_ends_when_its_key_dies(cast, server, host):
    key_id = Worker.objects.get(id=host.worker_id).host_key_id
    with stream(server, host) as reader:
        url = f"/api/v1/environments/{cast.environment.id}/api-keys/{key_id}"
        assert cast.client(cast.owner).delete(url).status_code == 204
        reader.ends()
