"""Machines, pools, and the way in which a machine is added."""

import html
import re
from datetime import timedelta

import pytest
from django.db.models.functions import Now

from console.tests.visits import text_of, visitor
from testing.world.pools import add_pool
from testing.world.runs import Runs
from triggers.models import Trigger
from workers.models import Enrollment, Pool, Worker
from workspaces.models import ApiKey

HOSTILE = "<img src=x onerror=alert(1)> javascript:alert(1) \u202egnp.exe \x1b[31mred"


@pytest.fixture
def below(cast):
    """Returns a path below the cast's environment."""
    return lambda rest: f"/console/environments/{cast.environment.id}/{rest}"


@pytest.fixture
def of_worker(cast):
    """Returns a path below the cast's worker."""
    return lambda rest="": f"/console/machines/{cast.worker.worker_id}{rest}"


def test_what_is_wrong_comes_first_and_says_what_waits(cast, below):
    cast.register("well-1")
    Worker.objects.filter(hostname="well-1").update(last_seen_at=Now())
    cast.register("off-2")
    silent = cast.register("silent-3").worker_id
    Runs.of(cast, worker_id=silent).running(worker_id=silent)
    Runs(cast, cast.trigger_id).queue()
    add_pool(cast, name="Nobody")
    page = visitor(cast.viewer).get(below("machines"))
    shown = text_of(page)
    assert shown.index("host-1") < shown.index("off-2") < shown.index("well-1")
    assert "Offline 1 run waits for it 0 of 1" in shown
    assert "3 machines are offline Start the worker program there" in shown
    assert re.search("silent-3 Offline .* 1 of 1", shown)
    assert "Nobody Offline It is empty. 0 of 0 online, 0 free" in shown
    assert "Add a machine" not in shown
    assert "well-1" not in text_of(visitor(cast.viewer).get(below("machines?status=offline")))


def test_an_environment_without_machines_leads_to_the_first_one(cast, below):
    Worker.objects.update(deleted_at=Now(), token_digest=None)
    assert below("machines/new") in visitor(cast.admin).get(below("machines")).content.decode()
    assert "An admin can add one" in text_of(visitor(cast.viewer).get(below("machines")))


@pytest.mark.parametrize(
    ("before", "do", "after"),
    [
        ({}, "pause", lambda worker: worker.disabled_at is not None),
        ({"disabled_at": Now()}, "resume", lambda worker: worker.disabled_at is None),
        ({"unapproved_since": Now()}, "approve", lambda worker: worker.unapproved_since is None),
        (
            {"limited_until": Now() + timedelta(hours=1)},
            "lift",
            lambda worker: worker.limited_until is None,
        ),
    ],
)
def test_each_problem_has_its_button(before, do, after, cast, of_worker):
    Worker.objects.filter(id=cast.worker.worker_id).update(**before)
    button = f'value="{do}"'
    assert button not in visitor(cast.operator).get(of_worker()).content.decode()
    assert visitor(cast.operator).post(of_worker(), {"do": do}).status_code == 403
    admin = visitor(cast.admin)
    assert button in admin.get(of_worker()).content.decode()
    assert admin.post(of_worker(), {"do": do})["Location"] == of_worker()
    assert after(Worker.objects.get(id=cast.worker.worker_id))


def test_a_button_that_no_page_has_does_nothing(cast, of_worker):
    assert visitor(cast.admin).post(of_worker(), {"do": "explode"}).status_code == 303


def test_a_machine_is_renamed_and_gets_more_slots(cast, of_worker):
    admin = visitor(cast.admin)
    wrong = admin.post(of_worker("/edit"), {"label": "big one", "maxConcurrency": "0"})
    assert wrong.status_code == 400
    assert 'id="field-maxConcurrency-error"' in wrong.content.decode()
    right = {"label": "big one", "maxConcurrency": "4"}
    assert admin.post(of_worker("/edit"), right).status_code == 303
    assert "big one" in text_of(admin.get(of_worker()))
    assert "0 of 4 taken" in text_of(admin.get(of_worker()))


def test_a_token_is_revoked_and_a_machine_deleted_after_a_question(cast, of_worker, below):
    admin = visitor(cast.admin)
    assert "comes back when it registers again" in text_of(admin.get(of_worker()))
    admin.post(of_worker(), {"do": "revoke"})
    assert Worker.objects.get(id=cast.worker.worker_id).token_digest is None
    heir = cast.register("heir-1").worker_id
    question = admin.get(of_worker("/delete"))
    assert "Its triggers and queued runs go to" in text_of(question)
    assert str(heir) in question.content.decode()
    # A trigger points at it, so somebody must say where that goes.
    assert admin.post(of_worker("/delete"), {"reassignTo": ""}).status_code == 409
    assert admin.post(of_worker("/delete"), {"reassignTo": "x"}).status_code == 400
    gone = admin.post(of_worker("/delete"), {"reassignTo": heir})
    assert gone["Location"] == below("machines")
    assert Trigger.objects.get(id=cast.trigger_id).worker_id == heir
    assert admin.get(of_worker()).status_code == 404


def test_one_of_many_machines_is_named_and_not_chosen_from_a_list(cast, below, of_worker):
    admin = visitor(cast.admin)
    page = admin.post(below("pools/new"), {"name": "Night", "description": ""})["Location"]
    machines = [cast.register(f"many-{number}").worker_id for number in range(21)]
    for path in (page, of_worker("/delete")):
        shown = admin.get(path).content.decode()
        assert 'list="' in shown
        assert str(machines[0]) not in shown
    assert "Nothing has this name" in text_of(admin.post(page, {"add": "many-99"}))
    assert admin.post(page, {"add": "many-7"}).status_code == 303
    assert "many-7" in text_of(admin.get(page))
    assert admin.post(of_worker("/delete"), {"reassignTo": "many-99"}).status_code == 400
    assert admin.post(of_worker("/delete"), {"reassignTo": "many-3"}).status_code == 303
    assert Trigger.objects.get(id=cast.trigger_id).worker_id == machines[3]


def test_a_pool_is_made_filled_changed_and_deleted(cast, below):
    admin, viewer = visitor(cast.admin), visitor(cast.viewer)
    made = admin.post(below("pools/new"), {"name": "Night", "description": ""})
    page = made["Location"]
    taken = admin.post(below("pools/new"), {"name": "night"})
    assert (taken.status_code, 'value="night"' in taken.content.decode()) == (409, True)
    worker = {"add": cast.worker.worker_id}
    assert viewer.post(page, worker).status_code == 403
    assert admin.post(page, worker)["Location"] == page
    cast.add_trigger(pool_id=Pool.objects.get().id, worker_id=None)
    assert "host-1 Offline" in text_of(viewer.get(page))
    assert "Take out" not in text_of(viewer.get(page))
    assert admin.post(page + "/delete").status_code == 409
    assert admin.post(page, {"remove": cast.worker.worker_id}).status_code == 303
    assert "no machine in it" in text_of(viewer.get(page))
    assert admin.post(page, {"add": "../../x"}).status_code == 400
    changed = {"name": "Day", "description": "Those that are on"}
    assert admin.post(page + "/edit", changed).status_code == 303
    assert "Day" in text_of(viewer.get(page))
    Trigger.objects.filter(pool__isnull=False).update(deleted_at=Now())
    assert admin.post(page + "/delete")["Location"] == below("machines")


def lines_of(page):
    (found,) = re.findall("<pre[^>]*>(.*?)</pre>", page.content.decode(), re.DOTALL)
    return html.unescape(found).strip().split("\n")


def arrival_of(page):
    (found,) = re.findall('hx-get="([^"]+seen=[^"]+)"', page.content.decode())
    return html.unescape(found)


def test_a_machine_comes_by_the_lines_of_the_page_which_shows_it(cast, below):
    admin, pool = visitor(cast.admin), add_pool(cast, name="Night")
    assert visitor(cast.operator).post(below("machines/new"), {"name": "x"}).status_code == 403
    nameless = admin.post(below("machines/new"), {"name": ""})
    assert 'id="field-name-error"' in nameless.content.decode()
    page = admin.post(below("machines/new"), {"name": "it's; mine", "poolIds": pool})
    install, register, run = lines_of(page)
    token = register.partition("=")[2].partition(" ")[0]
    assert install.startswith("pipx install ")
    assert register.endswith(
        " pipedai-worker register --api-url http://localhost:8000 --label 'it'\"'\"'s; mine'"
    )
    assert run == "pipedai-worker run"
    waits = arrival_of(page)
    # htmx asks again and again, and nothing is new.
    assert admin.get(waits, headers={"HX-Request": "true"}).status_code == 204
    assert token not in admin.get(waits).content.decode()
    body = {"token": token, "hostname": "mine", "os": "linux", "version": "1.0.0"}
    cast.client(cast.viewer).post("/api/v1/workers/register", body)
    registered = admin.get(waits, headers={"HX-Request": "true"})
    assert "Registered mine" in text_of(registered)
    Worker.objects.filter(hostname="mine").update(last_seen_at=Now())
    arrived = admin.get(waits)
    assert "Connected mine" in text_of(arrived)
    assert "seen=" not in arrived.content.decode()
    assert "mine" in text_of(admin.get(f"/console/pools/{pool}"))


def test_a_host_comes_by_a_code_which_can_be_revoked(cast, below):
    admin = visitor(cast.admin)
    assert "/pair" in admin.get(below("hosts/new")).content.decode()
    page = admin.post(below("hosts/new"), {"label": "rack", "authMode": "api_key"})
    connect = lines_of(page)[-1]
    assert re.fullmatch("pipedai-orchestrator connect --api-url http://[^ ]+ <<< enr_\\w+", connect)
    waits = arrival_of(page)
    code = Enrollment.objects.get()
    assert f"rack …{code.last_four}" in text_of(admin.get(below("hosts/new")))
    assert visitor(cast.operator).get(waits).status_code == 403
    assert admin.post(below("hosts/new"), {"revoke": code.id}).status_code == 303
    assert "Expired" in text_of(admin.get(waits))
    assert "rack" not in text_of(admin.get(below("hosts/new")))
    assert admin.get(below(f"hosts/new/{cast.environment.id}")).status_code == 404


def test_a_key_that_expired_leads_nowhere(cast, below):
    admin = visitor(cast.admin)
    waits = arrival_of(admin.post(below("machines/new"), {"name": "late"}))
    ApiKey.objects.filter(name="late").update(expires_at=Now() - timedelta(seconds=1))
    assert "Expired" in text_of(admin.get(waits))


def test_what_a_machine_says_of_itself_is_text(cast, below, of_worker):
    Worker.objects.update(label=HOSTILE, hostname=HOSTILE, os=HOSTILE, version=HOSTILE[:64])
    pool = add_pool(cast, cast.worker.worker_id, name="Pool " + HOSTILE)
    other = add_pool(cast)
    for path in (
        below("machines"),
        of_worker(),
        of_worker("/edit"),
        of_worker("/delete"),
        f"/console/pools/{pool}",
        f"/console/pools/{other}",
        below("machines/new"),
    ):
        page = visitor(cast.admin).get(path).content.decode()
        assert "<img src=x" not in page, path
        assert re.findall('(?:href|action|src)="javascript:', page) == [], path
