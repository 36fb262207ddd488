"""A virtual machine that is set up with the commands of docs/deploy.md and nothing else.

It is one test, since making a machine takes half a minute. The test does what an operator does, in that order.
"""

import json
import re
import time
from uuid import uuid4

import httpx
import pytest

from deploy.tests.conftest import DOMAIN, RELEASE, UNITS, Deployed
from deploy.tests.doc import commands
from deploy.tests.load import Load
from testing.processes.main_job import PASSWORD, MainJob, answered
from testing.processes.worker_process import until

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]

ALWAYS = (
    "Cache-Control",
    "Content-Security-Policy",
    "Content-Type",
    "Strict-Transport-Security",
    "X-Content-Type-Options",
)


OBJECTS = """
SELECT 'constraint', conrelid::regclass::text, conname, contype::text, convalidated::text FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace
UNION ALL SELECT 'trigger', tgrelid::regclass::text, tgname, '', tgenabled::text FROM pg_trigger WHERE NOT tgisinternal
UNION ALL SELECT 'index', indrelid::regclass::text, relname, indisunique::text, indisvalid::text
    FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid WHERE relnamespace = 'public'::regnamespace
UNION ALL SELECT 'partition', inhparent::regclass::text, inhrelid::regclass::text, '', '' FROM pg_inherits
UNION ALL SELECT 'function', proname, md5(prosrc), '', '' FROM pg_proc WHERE pronamespace = 'public'::regnamespace
UNION ALL SELECT 'sequence', sequencename, last_value::text, '', '' FROM pg_sequences
"""


def test_the_documented_set_up_serves_restarts_pools_and_restores(deployed: Deployed) -> None:
    with deployed.client() as http:
        job = MainJob(http)
        the_main_job_is_done(deployed, http, job)
        the_proxy_passes_on_what_matters(deployed, http)
        the_units_are_well_formed(deployed)
        a_new_release_under_load_loses_nothing(deployed)
        a_backup_is_a_working_system(deployed, http, job)
        it_works_through_pgbouncer(deployed, http, job)
        without_the_web_process_the_proxy_says_so(deployed, http)


def the_main_job_is_done(deployed: Deployed, http: httpx.Client, job: MainJob) -> None:
    assert http.get("/health").json()["status"] == "ok"
    job.execute()
    assert job.woken() < 10  # without being told, it looks again after 12 s
    deployed.machine.run("pipedai", "check_deploy")
    settings = deployed.machine.path("/etc/pipedai/pipedai.env")
    assert settings.stat().st_mode & 0o777 == 0o640


def the_proxy_passes_on_what_matters(deployed: Deployed, http: httpx.Client) -> None:
    """It passes on scheme, client address, request id and limits, and drops what clients claim about themselves."""
    login = {"email": "nobody@example.com", "password": "wrong"}
    answer = http.post(
        "/auth/login",
        json=login,
        headers={"X-Request-Id": "ours", "X-Forwarded-For": "6.6.6.6"},
    )
    assert answer.status_code == 401
    assert answer.headers["X-Request-Id"] == "ours"
    (line,) = until(lambda: logged(deployed, request_id="ours", event="request"), seconds=5)
    assert line["client"] == "127.0.0.1"

    registered = {"email": "secure@example.com", "password": "correct horse battery staple"}
    with deployed.client() as other:
        answer = other.post("/auth/register", json=registered)
    assert "Secure" in answer.headers["Set-Cookie"]
    foreign = http.post("/auth/login", json=login, headers={"Origin": f"http://{DOMAIN}"})
    assert foreign.status_code == 403
    assert http.get("/nothing").headers["Strict-Transport-Security"]

    always = {name: http.get("/nothing").headers[name] for name in ALWAYS}
    for size, limit in ((1_100_000, "1 MiB"), (50_000_000, "8 MiB")):
        for body in (b"x" * size, [b"x" * 100_000] * (size // 100_000)):
            answer = http.post("/auth/login", content=body)
            assert answer.status_code == 413, answer.text
            assert answer.json() == {
                "error": f"The body must not be over {limit}.",
                "code": "body_too_large",
            }
            assert {name: answer.headers[name] for name in ALWAYS} == always
    plan = http.post(f"/environments/{uuid4()}/plan", content=b"x" * 2_000_000)
    assert plan.status_code == 404  # there is no such environment
    for status, code, path, headers in (
        (431, "headers_too_large", "/nothing", {"X-Long": "x" * 40_000}),
        (414, "target_too_long", f"/{'x' * 40_000}", {}),
        (400, "malformed_request", "/nothing", {"Host": "a b"}),
        (404, "not_found", "/refused-by-nginx", {}),
    ):
        answer = http.get(path, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert set(answer.json()) == {"error", "code"}
        assert answer.headers["X-Request-Id"]

    plain = httpx.get("http://127.0.0.1/api/v1/health?a=b", headers={"Host": DOMAIN})
    assert plain.status_code == 308
    assert plain.headers["Location"] == f"https://{DOMAIN}/api/v1/health?a=b"


def the_units_are_well_formed(deployed: Deployed) -> None:
    units = deployed.machine.run("sh", "-c", "ls /etc/systemd/system/pipedai-*").split()
    assert len(units) == 3
    assert deployed.machine.run("systemd-analyze", "verify", *units) == ""


def a_new_release_under_load_loses_nothing(deployed: Deployed) -> None:
    """It loses no run, and no request that its client repeats once."""
    following = f"{RELEASE}-following"
    # The copy includes the installed packages, since installing them again would test nothing new. Nobody writes to a
    # release, so links do for files.
    deployed.machine.run("cp", "-a", "--link", RELEASE, following)
    load = Load(deployed.client, jobs=2)
    with load.going_on():
        time.sleep(1)
        deployed.machine.run("bash", "-ec", commands("### A new release")[-1], directory=following)
        for unit in (*UNITS, "pipedai-web"):
            deployed.restart(unit)
            deployed.wait_until_up()
            time.sleep(0.5)
    assert deployed.directories() == {following}
    assert len(load.fired) > 20
    assert load.executed == dict.fromkeys(load.fired, 1)


def a_backup_is_a_working_system(deployed: Deployed, http: httpx.Client, job: MainJob) -> None:
    waiting = job.queue()
    deployed.follow("### Backup")
    lost = job.queue()
    for unit in UNITS:
        deployed.stop(unit)
    deployed.follow("### Restore")
    for unit in UNITS:
        deployed.start(unit)
    deployed.wait_until_up()

    assert http.get(f"/runs/{lost}").status_code == 404
    job.finish(waiting)
    answered(http.post("/auth/login", json={"email": job.email, "password": PASSWORD}))
    before, after = (objects(deployed, name) for name in ("pipedai_before", "pipedai"))
    assert before == after
    protected = [line for line in after if "|audit_append_only|" in line]
    assert len(protected) > 4
    assert all(line.endswith("|A") for line in protected)  # ENABLE ALWAYS
    deployed.machine.run("pipedai", "check_deploy")


def objects(deployed: Deployed, database: str) -> list[str]:
    """Returns a line for each object of a database that is no row, with its definition."""
    psql = ["runuser", "-u", "postgres", "--", "psql", "-tA", "-c", OBJECTS, database]
    return sorted(deployed.machine.run(*psql).splitlines())


def it_works_through_pgbouncer(deployed: Deployed, http: httpx.Client, job: MainJob) -> None:
    deployed.follow("### PgBouncer")
    run = ["runuser", "-u", "postgres", "--", "pgbouncer", "-q", "/etc/pgbouncer/pgbouncer.ini"]
    deployed.machine.start(*run, log=deployed.logs / "pgbouncer.log")
    deployed.machine.run("pipedai", "release")
    for unit in UNITS:
        deployed.restart(unit)
    deployed.wait_until_up()
    job.execute()
    # The run came sooner than a waiting poll looks by itself, so the notification bypassed PgBouncer.
    assert job.woken() < 10  # without being told, it looks again after 12 s
    said = deployed.machine.path("/var/log/postgresql/pgbouncer.log").read_text()
    assert re.search(r"pipedai/pipedai@unix.* login attempt", said)


def without_the_web_process_the_proxy_says_so(deployed: Deployed, http: httpx.Client) -> None:
    deployed.stop("pipedai-web")
    answer = http.get("/health")
    assert (answer.status_code, answer.json()["code"]) == (503, "service_unavailable")
    assert answer.headers["Retry-After"]


def logged(deployed: Deployed, **values: str) -> list[dict]:
    """Returns the log lines of the web process with these values."""
    lines = [json.loads(x) for x in deployed.log("pipedai-web").splitlines() if x.startswith("{")]
    return [line for line in lines if values.items() <= line.items()]
