"""The unmodified host client from npm enrolls, supervises, upgrades and deletes workers of a live server."""

import contextlib
import json
import re
import threading
from pathlib import Path

import pytest

from testing.processes.browser import chromium, sideways_overflow
from testing.processes.published_client import PATIENCE_SECONDS, Daemon, Host, install_client
from testing.processes.scripted_model import real_claude, scripted_model
from testing.processes.tools_server import tools_server
from testing.processes.web_process import free_port, serve
from testing.processes.worker_process import until
from testing.world.cast import TEST_ACTOR, issue_enrollment
from testing.world.trigger_values import trigger_values
from testing.world.users import PASSWORD
from triggers.models import Run, Trigger
from triggers.services import TRIGGERS
from workers.models import Worker

pytestmark = [pytest.mark.long, pytest.mark.timeout(800)]


@pytest.fixture(scope="module")
def cli(tmp_path_factory) -> Path:
    return install_client(tmp_path_factory.mktemp("client"))


class Site:
    """Our side: the server, which can be killed and started again, and the actions of its users."""

    def __init__(self, cast, database: str, directory: Path, mcp_url: str) -> None:
        self.cast, self.port = cast, free_port()
        self._mcp_url = mcp_url
        self._database, self._log = database, directory / "web.log"
        self._gate, self._working = directory / "gate", directory / "working"
        self.url = f"http://127.0.0.1:{self.port}"
        self._open = contextlib.ExitStack()
        self.start()

    def start(self) -> None:
        self.server = self._open.enter_context(
            serve(self._database, log=self._log, PORT=str(self.port))
        )

    def stop(self) -> None:
        self._open.close()

    def code(self) -> str:
        return issue_enrollment(self.cast.environment, self.cast.admin, "api_key")[1]

    def run(self, trigger_id) -> Run:
        """Runs the trigger. The run's program goes on until `end_runs()`."""
        self._gate.unlink(missing_ok=True)
        self._working.unlink(missing_ok=True)
        answer = self.cast.client(self.cast.owner).post(f"/api/v1/triggers/{trigger_id}/run", {})
        return Run.objects.get(id=answer.json()["id"])

    def is_at_work(self) -> bool:
        """Tells whether the run's program has begun. From then on the worker does not need the server."""
        return self._working.exists()

    def end_runs(self) -> None:
        self._gate.touch()

    def trigger(self, worker_id: str, prompt: str | None = None):
        """Makes a trigger. Without a prompt of its own, its runs go on until `end_runs()`, played by the stand-in."""
        prompt = prompt or (
            f"standin: note {self._working}\nstandin: wait-for {self._gate}\nstandin: success done"
        )
        return TRIGGERS.create(
            environment_id=self.cast.environment.id,
            actor=TEST_ACTOR,
            values=trigger_values(worker_id=worker_id, prompt=prompt, mcp_url=self._mcp_url),
        )


@pytest.fixture
def site(committed_cast, own_database, tmp_path):
    with tools_server() as mcp_url:
        site = Site(committed_cast, own_database, tmp_path, mcp_url)
        yield site
        site.stop()


def _ended(run: Run) -> str | None:
    run.refresh_from_db()
    return run.status if run.ended_at else None


def test_a_host_enrols_by_code_and_is_supervised_until_it_is_deleted(site, cli, tmp_path):
    host = Host(tmp_path / "host", cli)
    host.connect(site.url, "--token", site.code(), "--label", "first")
    first = str(Worker.objects.get(label="first").id)
    trigger_id = site.trigger(first)
    with host.daemon() as daemon:
        _it_is_online_and_works(site, daemon, first, trigger_id)
        _it_is_disabled_and_enabled(daemon, first)
        second = _another_is_built(site, daemon)
        _it_is_drained_and_upgraded(site, host, daemon, first, trigger_id)
        _the_server_is_killed(site, host, daemon, first, trigger_id)
        _both_are_deleted(daemon, first, second, trigger_id)


def _it_is_online_and_works(site, daemon: Daemon, worker_id: str, trigger_id) -> None:
    until(lambda: daemon.remote_status(worker_id) == "online")
    run = site.run(trigger_id)
    until(lambda: daemon.remote_status(worker_id) == "busy")
    assert daemon.known(worker_id)["currentRunId"] == str(run.id)
    site.end_runs()
    assert until(lambda: _ended(run)) == "succeeded"
    until(lambda: daemon.remote_status(worker_id) == "online")
    # The daemon learns this from the event stream, which it opened at its start.
    until(lambda: daemon.known(worker_id)["lastEvent"]["type"] == "run.completed")


def _it_is_disabled_and_enabled(daemon: Daemon, worker_id: str) -> None:
    daemon.do("disable", worker_id)
    assert daemon.known(worker_id)["remote"]["derivedStatus"] == "disabled"
    assert daemon.known(worker_id)["local"]["state"] == "stopped"
    daemon.do("enable", worker_id)
    until(lambda: daemon.remote_status(worker_id) == "online")


def _another_is_built(site, daemon: Daemon) -> str:
    """Lets the daemon add a second worker, with a registration token that it mints itself."""
    built = daemon.client.post("workers", json={"apiUrl": site.url, "label": "second"})
    worker_id = str(built.raise_for_status().json()["id"])
    until(lambda: daemon.remote_status(worker_id) == "online")
    host_keys = Worker.objects.values_list("host_key_id", flat=True).filter(
        label__startswith="first"
    )
    assert Worker.objects.get(id=worker_id).host_key_id == host_keys.get()
    return worker_id


def _it_is_drained_and_upgraded(site, host, daemon: Daemon, worker_id: str, trigger_id) -> None:
    run = site.run(trigger_id)
    until(lambda: daemon.remote_status(worker_id) == "busy")
    before = daemon.known(worker_id)["local"]["pid"]
    asking = threading.Thread(
        target=daemon.do, args=("upgrade", worker_id), kwargs={"version": "0.1.0"}
    )
    asking.start()
    until(lambda: Worker.objects.get(id=worker_id).disabled_at)
    # The worker drains before the upgrade.
    assert "install -g @pipedai/worker@0.1.0" not in host.npm_calls
    site.end_runs()
    while asking.is_alive():
        # This makes the daemon ask our API at once, and not only every 15 s.
        daemon.worker(worker_id)
        asking.join(0.5)
    assert _ended(run) == "succeeded"
    assert "install -g @pipedai/worker@0.1.0" in host.npm_calls
    assert Worker.objects.get(id=worker_id).disabled_at is None
    assert daemon.known(worker_id)["local"]["pid"] != before


def _the_server_is_killed(site, host, daemon: Daemon, worker_id: str, trigger_id) -> None:
    """Kills the server while a run is executed. The run ends before the server is back."""
    run = site.run(trigger_id)
    until(site.is_at_work)
    site.server.kill()
    site.end_runs()
    until(lambda: list(host.home.rglob(f"outcomes/{run.id}.json")))
    site.start()
    assert until(lambda: _ended(run)) == "succeeded"
    until(lambda: daemon.remote_status(worker_id) == "online")
    until(lambda: _its_stream_tells_of_a_change(site, daemon, worker_id))
    again = site.run(trigger_id)
    site.end_runs()
    assert until(lambda: _ended(again)) == "succeeded"


def _its_stream_tells_of_a_change(site, daemon: Daemon, worker_id: str) -> bool:
    """Changes the worker, and tells whether the daemon has heard of it.

    The daemon opens a broken stream again after some seconds, and hears of no change before.
    """
    wanted = 3 - Worker.objects.get(id=worker_id).max_concurrency
    client, url = site.cast.client(site.cast.owner), f"/api/v1/workers/{worker_id}"
    assert client.patch(url, {"maxConcurrency": wanted}).status_code == 200
    return bool(daemon.known(worker_id)["lastEvent"]["type"] == "concurrency.changed")


def _both_are_deleted(daemon: Daemon, first: str, second: str, trigger_id) -> None:
    refused = daemon.client.delete(f"workers/{first}")
    assert (refused.status_code, "1 trigger" in refused.text) == (500, True)
    Trigger.objects.filter(id=trigger_id).update(worker_id=None)
    for worker_id in (first, second):
        daemon.client.delete(f"workers/{worker_id}").raise_for_status()
        assert daemon.known(worker_id) == {}
        assert Worker.objects.get(id=worker_id).deleted_at is not None


def test_a_host_logs_in_with_an_admins_key_and_manages_what_was_registered_by_hand(
    site, cli, tmp_path
):
    host = Host(tmp_path / "host", cli)
    token = site.cast.mint("wrk")
    host.carry_out("pipedai-worker", "register", "--api-url", site.url, "--token", token)
    first = str(Worker.objects.latest("created_at").id)
    key = site.cast.mint("pwk", role="admin")
    host.carry_out("pipedai-orchestrator", "login", "--api-url", site.url, given=f"{key}\n")
    assert first in host.carry_out("pipedai-orchestrator", "adopt")
    trigger_id = site.trigger(first)
    with host.daemon() as daemon:
        _it_is_online_and_works(site, daemon, first, trigger_id)
        _it_is_disabled_and_enabled(daemon, first)
        built = daemon.client.post("workers", json={"apiUrl": site.url, "label": "second"})
        second = str(built.raise_for_status().json()["id"])
        until(lambda: daemon.remote_status(second) == "online")
        assert Worker.objects.get(id=second).unapproved_since is not None
        _both_are_deleted(daemon, first, second, trigger_id)


def test_a_host_that_pays_by_a_key_executes_a_run_with_the_real_claude(site, cli, tmp_path):
    """The client writes no way of paying into the worker's configuration: the worker learns it from the API."""
    claude = real_claude()
    with scripted_model() as model:
        variables = {"ANTHROPIC_API_KEY": "sk-ant-api03-scripted", "ANTHROPIC_BASE_URL": model}
        host = Host(tmp_path / "host", cli, claude, variables)
        host.connect(site.url, "--token", site.code(), "--label", "paid by a key")
        (registered,) = host.home.rglob("workers/*.json")
        assert "authMode" not in json.loads(registered.read_text())
        worker_id = str(Worker.objects.get(label="paid by a key").id)
        with host.daemon() as daemon:
            until(lambda: daemon.remote_status(worker_id) == "online")
            run = site.run(site.trigger(worker_id, "Do what the model says."))
            assert until(lambda: _ended(run)) == "succeeded", run.short_message
        assert json.loads(registered.read_text())["authMode"] == "api_key"
    assert (run.short_message, run.tool_calls_total) == ("It is done.", 1)


def test_a_host_is_paired_by_a_person_in_a_browser(site, cli, tmp_path):
    host = Host(tmp_path / "host", cli)
    with host.connecting(site.url, "--label", "paired") as waiting:
        address, code = _what_it_shows(waiting)
        _approve(site, address, code)
        rest, _ = waiting.communicate(timeout=PATIENCE_SECONDS)
    assert waiting.returncode == 0, rest
    assert Worker.objects.get(label="paired").environment_id == site.cast.environment.id


def _what_it_shows(waiting) -> tuple[str, str]:
    said = ""
    while not (found := re.search(r"(http\S+/pair)#.*pairing code:\n\s+(\S+)\n", said, re.DOTALL)):
        line = waiting.stdout.readline()
        assert line, said
        said += line
    return found[1], found[2]


def _approve(site, address: str, code: str) -> None:
    email = site.cast.admin.email
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 390, "height": 844})
        opened = page.goto(f"{address}#{code}")
        assert opened is not None
        policy = opened.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        page.get_by_label("E-mail address").fill(email)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        # The link contains the code, but the person must type it all the same.
        assert page.get_by_label("Pairing code").input_value() == ""
        page.get_by_label("Pairing code").fill(code.replace("-", " ").lower())
        page.get_by_role("button", name="Continue").click()
        page.get_by_label("Environment").wait_for()
        text = page.inner_text("main")
        assert "127.0.0.1" in text
        assert "node" in text
        assert "paired\nUnverified" in text
        # The only environment is chosen already.
        chosen = page.get_by_label("Environment").locator("option:checked")
        assert chosen.inner_text() == "production / production"
        assert sideways_overflow(page) == []
        page.get_by_role("button", name="Approve").click()
        page.get_by_role("status").wait_for()
        assert "Approved" in page.inner_text("main")
