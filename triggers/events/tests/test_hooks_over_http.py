"""Over real HTTP, the same delivery twenty times at once is one event and one run, and any type of content is taken."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from testing.processes.web_process import Server
from testing.world.cast import Cast
from testing.world.events import add_source, github, listen
from triggers.models import Event, Run

TYPES = [
    "application/json; charset=iso-8859-1",
    "application/json; charset=punycode",
    "multipart/form-data; boundary=x",
    "application/x-www-form-urlencoded",
    "text/plain; title*=utf-16''x",
    "nonsense",
]


def test_a_served_hook(committed_cast: Cast, server: Server, subtests: pytest.Subtests) -> None:
    cast = committed_cast
    source_id = add_source(cast)
    listen(cast.trigger_id, source_id=source_id)
    url = f"{server.api}/hooks/{source_id}"

    def deliver(body: bytes, **headers: str) -> httpx.Response:
        while True:
            answer = httpx.post(url, content=body, headers=github(body, **headers), timeout=60)
            # On a slow machine a duplicate may wait too long for the first one, and is sent again, as a sender would.
            if answer.status_code != 503:
                return answer

    with subtests.test("the same delivery twenty times at once"):
        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(lambda _: deliver(b'{"n": 1}'), range(20)))
        assert [answer.status_code for answer in answers] == [202] * 20
        (told,) = {answer.json()["id"] for answer in answers}
        event = Event.objects.get()
        assert (str(event.id), event.duplicates) == (told, 19)
        assert Run.objects.get().event_id == event.id
    for number, type_ in enumerate(TYPES):
        with subtests.test(type_):
            answer = deliver(b'{"of": %d}' % number, **{"Content-Type": type_})
            assert answer.status_code == 202
    with subtests.test("compressed"):
        answer = deliver(b"[]", **{"Content-Encoding": "gzip"})
        assert answer.status_code == 415
    with subtests.test("no signature, in any odd form"):
        for value in ("", "sha256=", "sha256=\xff\xfe", "sha256=" + "f" * 7000, "sha1=1,sha256=2"):
            sent = {b"X-Hub-Signature-256": value.encode("latin-1")}
            assert httpx.post(url, content=b"{}", headers=sent, timeout=60).status_code == 401
    with subtests.test("no id of a source"):
        assert httpx.post(f"{server.api}/hooks/1", content=b"{}", timeout=60).status_code == 404
