"""PATCH /triggers/:id"""

from datetime import timedelta
from typing import Any

import pytest

from pipedai.ids import new_id
from testing.probes.audited import audited
from testing.probes.shapes import A_TIME, invalid
from testing.probes.tables import columns_with
from testing.processes.worker_calls import WorkerCalls
from testing.world.cases import cases
from testing.world.cast import register
from testing.world.runs import Runs
from testing.world.trigger_values import SAMPLES, SECRET_SAMPLES, add_sample_rows
from triggers.models import Run, Trigger, TriggerRevision
from triggers.serializers import TriggerBody
from workers.models import Worker

SECRET = "a-planted-header-value"
HEADERS = {"x-api-key": SECRET}
# A connection changes the URL, too: workspaces/connections/tests/ has it.
FIELDS = sorted({*TriggerBody().get_fields()} - {"connectionId"})


@pytest.fixture(autouse=True)
def _sample_pool(cast):
    add_sample_rows(cast.environment)


@pytest.fixture
def url(cast):
    return f"/api/v1/triggers/{cast.trigger_id}"


@pytest.fixture
def patch(cast, url):
    """Returns a function that sends a PATCH as the admin, checks that it succeeds, and returns the answer."""

    def patching(**body):
        response = cast.client(cast.admin).patch(url, body)
        assert response.status_code == 200, response.content
        return response.json()

    return patching


def the_row(rows, cast, action="trigger.updated"):
    return rows.the_only(
        action,
        by=("user", cast.admin.id),
        on=("trigger", cast.trigger_id),
        within=cast.environment.id,
    )


class TestWhatChanges:
    def test_every_field_at_once(self, cast, url, patch):
        before = cast.client(cast.viewer).get(url).json()
        after = patch(**SAMPLES)
        assert after == {**before, **SAMPLES, "updatedAt": A_TIME}
        assert after["updatedAt"] > before["updatedAt"]
        assert cast.client(cast.viewer).get(url).json() == after

    @pytest.mark.parametrize("field", FIELDS)
    def test_each_field_alone_and_the_row_says_old_and_new(self, cast, url, patch, field):
        assert field in SAMPLES.keys() | SECRET_SAMPLES.keys(), (
            f"{field} has no sample in SAMPLES of testing/world/trigger_values.py:"
            ' see CONTRIBUTING.md, "A field of a trigger"'
        )
        Trigger.objects.update(retry_after_effects=False)
        before = cast.client(cast.viewer).get(url).json()
        value, shown_as = SECRET_SAMPLES.get(field) or (SAMPLES[field], field)
        with audited() as rows:
            after = patch(**{field: value})
        told = "[redacted]" if field in SECRET_SAMPLES else [before[field], value]
        assert the_row(rows, cast) == {field: told}
        changed = {name for name in after if after[name] != before[name]}
        assert changed - {"nextRunAt", "mcpHeaderNames"} == {shown_as, "updatedAt"}

    @cases(
        "body",
        [{}, {"name": "Nightly report"}, {"webhookUrl": None}, {"mcpHeaders": {}}],
        undone=True,
    )
    def test_what_is_as_it_was_changes_nothing(self, cast, url, patch, body):
        before = cast.client(cast.viewer).get(url).json()
        with audited() as rows:
            assert patch(**body) == before
        assert rows == []

    def test_the_same_body_again_writes_one_row(self, patch):
        with audited() as rows:
            assert patch(**SAMPLES) == patch(**SAMPLES)
        assert len(rows) == 1

    def test_null_clears_what_may_be_empty(self, patch):
        patch(**SAMPLES)
        cleared = {"schedule": None, "webhookUrl": None, "model": None, "workerId": None}
        after = patch(**cleared)
        assert {name: after[name] for name in cleared} == cleared

    def test_a_new_prompt_is_a_new_revision_and_queued_runs_keep_the_old(self, cast, patch):
        runs = Runs(cast, cast.trigger_id)
        before, old = runs.queue(), Trigger.objects.get().revision_id
        patch(prompt="Do more.")
        after = runs.queue()
        assert Run.objects.get(id=before).revision_id == old
        assert Run.objects.get(id=after).revision.prompt == "Do more."
        assert TriggerRevision.objects.count() == 2

    def test_a_long_prompt_is_cut_in_the_audit_row(self, cast, patch):
        with audited() as rows:
            patch(prompt="x" * 5000)
        assert the_row(rows, cast) == {"prompt": ["Report.", "x" * 200 + "…"]}


class TestTheSchedule:
    def test_gives_the_next_time(self, patch):
        assert patch(schedule="0 9 * * *")["nextRunAt"] == A_TIME
        assert patch(schedule=None)["nextRunAt"] is None

    def test_disabled_has_none_and_enabled_a_new_one(self, patch):
        patch(schedule="0 9 * * *")
        assert patch(enabled=False)["nextRunAt"] is None
        assert patch(enabled=True)["nextRunAt"] == A_TIME

    def test_another_zone_moves_it(self, patch):
        utc = patch(schedule="30 9 1 1 *")["nextRunAt"]
        assert utc.endswith("-01-01T09:30:00.000Z")
        assert patch(timezone="Asia/Tokyo")["nextRunAt"].endswith("-01-01T00:30:00.000Z")

    def test_another_name_leaves_it(self, patch):
        patch(schedule="0 9 * * *")
        due = Trigger.objects.get().next_run_at
        assert due is not None
        moment = due - timedelta(days=3)
        Trigger.objects.update(next_run_at=moment)
        patch(name="Other")
        assert Trigger.objects.get().next_run_at == moment


class TestTheSecrets:
    def test_are_never_answered_nor_told(self, cast, patch):
        with audited() as rows:
            after = patch(mcpHeaders=HEADERS, webhookSecret="a-planted-webhook-secret")
        assert (after["hasMcpHeaders"], after["hasWebhookSecret"]) == (True, True)
        assert "mcpHeaders" not in after
        assert "webhookSecret" not in after
        assert the_row(rows, cast) == {"mcpHeaders": "[redacted]", "webhookSecret": "[redacted]"}
        assert columns_with(SECRET, "a-planted-webhook-secret") == []

    @pytest.mark.parametrize("empty", [None, {}])
    def test_null_and_empty_headers_clear(self, cast, patch, empty):
        patch(mcpHeaders=HEADERS)
        with audited() as rows:
            assert patch(mcpHeaders=empty)["hasMcpHeaders"] is False
        assert the_row(rows, cast) == {"mcpHeaders": "[redacted]"}

    def test_null_clears_the_webhook_secret(self, patch):
        assert patch(webhookSecret="sixteen-and-more")["hasWebhookSecret"] is True
        assert patch(webhookSecret=None)["hasWebhookSecret"] is False

    def test_absent_ones_stay(self, cast, patch):
        patch(mcpHeaders=HEADERS, webhookSecret="sixteen-and-more")
        after = patch(name="Other")
        assert (after["hasMcpHeaders"], after["hasWebhookSecret"]) == (True, True)
        Runs(cast, cast.trigger_id).queue()
        (run,) = WorkerCalls(cast.worker).poll().json()["runs"]
        assert run["mcpHeaders"] == HEADERS

    @pytest.mark.parametrize(
        ("moved_to", "kept"),
        [
            ("https://mcp.example/elsewhere?x=1", True),
            ("https://MCP.example:443/v1", True),
            ("https://mcp.example:8443/v1", False),
            ("http://mcp.example/v1", False),
            ("https://other.example/v1", False),
            ("https://mcp.example.evil.example/v1", False),
        ],
    )
    def test_headers_stay_with_the_origin_that_they_were_given_for(self, patch, moved_to, kept):
        patch(mcpHeaders=HEADERS)
        with audited() as rows:
            assert patch(mcpUrl=moved_to)["hasMcpHeaders"] is kept
        (metadata,) = (row.metadata for row in rows)
        assert ("mcpHeaders" in metadata) is not kept

    def test_new_headers_go_with_a_new_origin(self, cast, patch):
        patch(mcpHeaders=HEADERS)
        patch(mcpUrl="https://other.example/", mcpHeaders={"x-api-key": "a-newer-secret"})
        Runs(cast, cast.trigger_id).queue()
        (run,) = WorkerCalls(cast.worker).poll().json()["runs"]
        assert (run["mcpUrl"], run["mcpHeaders"]) == (
            "https://other.example/",
            {"x-api-key": "a-newer-secret"},
        )

    @pytest.mark.parametrize(
        ("moved_to", "kept"),
        [
            ("https://hooks.example/elsewhere?x=1", True),
            ("https://HOOKS.example:443/v1", True),
            ("http://hooks.example/v1", False),
            ("https://other.example/v1", False),
            (None, False),
        ],
    )
    def test_the_webhooks_secret_stays_with_the_origin_that_it_was_given_for(
        self, patch, moved_to, kept
    ):
        patch(webhookUrl="https://hooks.example/v1", webhookSecret="planted-for-a-webhook")
        with audited() as rows:
            assert patch(webhookUrl=moved_to)["hasWebhookSecret"] is kept
        (metadata,) = (row.metadata for row in rows)
        assert ("webhookSecret" in metadata) is not kept

    def test_a_webhooks_secret_may_come_before_its_url_and_anew_with_another_one(self, patch):
        patch(webhookSecret="planted-for-a-webhook")
        assert patch(webhookUrl="https://hooks.example/v1")["hasWebhookSecret"] is True
        anew = {"webhookUrl": "https://other.example/v1", "webhookSecret": "planted-anew-for-it"}
        assert patch(**anew)["hasWebhookSecret"] is True

    @pytest.mark.parametrize("field", ["mcpUrl", "webhookUrl"])
    @pytest.mark.parametrize("rest", ["?token=planted-query", "#planted-query", "#planted?query"])
    def test_the_audit_row_has_urls_without_their_query(self, patch, field, rest):
        patch(**{field: f"https://a.example/p{rest}"})
        with audited() as rows:
            patch(**{field: f"https://a.example/q{rest}"})
        assert rows.told() == [
            ("trigger.updated", {field: ["https://a.example/p", "https://a.example/q"]})
        ]


class TestTheWorker:
    def test_queued_runs_move_and_held_ones_stay(self, cast, patch):
        Worker.objects.update(max_concurrency=2)
        runs = Runs(cast, cast.trigger_id)
        held, queued = runs.running(), runs.queue()
        other = cast.register("host-2")
        assert patch(workerId=str(other.worker_id))["workerId"] == str(other.worker_id)
        assert runs.stored(held)["worker_id"] == cast.worker.worker_id
        assert runs.stored(queued)["worker_id"] == other.worker_id
        (run,) = WorkerCalls(other).poll().json()["runs"]
        assert run["id"] == str(queued)

    def test_none_leaves_queued_runs_waiting_for_one(self, cast, patch):
        runs = Runs(cast, cast.trigger_id)
        queued = runs.queue()
        patch(workerId=None)
        assert runs.stored(queued)["worker_id"] is None
        assert WorkerCalls(cast.worker).poll().json()["runs"] == []
        patch(workerId=str(cast.worker.worker_id))
        assert [run["id"] for run in WorkerCalls(cast.worker).poll().json()["runs"]] == [
            str(queued)
        ]

    @cases("which", ["missing", "foreign", "deregistered"], undone=True)
    def test_any_that_is_not_the_environments_looks_missing(self, cast, url, which):
        other = cast.register("host-2")
        if which == "deregistered":
            Worker.objects.filter(id=other.worker_id).update(
                deleted_at="2026-01-01T00:00:00Z", token_digest=None
            )
        worker_id = {
            "missing": new_id(),
            "foreign": register(cast.mint_elsewhere("wrk"), "h").worker_id,
            "deregistered": other.worker_id,
        }[which]
        response = cast.client(cast.admin).patch(url, {"workerId": worker_id})
        assert response.status_code == 400
        assert response.json() == invalid({"workerId": ["No such machine in this environment."]})


class TestWhatIsRefused:
    BODIES: tuple[dict[str, Any], ...] = (
        {"name": ""},
        {"name": None},
        {"name": "x" * 201},
        {"description": "x" * 2001},
        {"prompt": ""},
        {"prompt": None},
        {"prompt": "x" * (256 * 1024 + 1)},
        {"mcpUrl": "ftp://mcp.example/"},
        {"mcpUrl": "https://user:pass@mcp.example/"},
        {"mcpUrl": "https://mcp.example/" + "x" * 2048},
        {"webhookUrl": "hooks.example"},
        {"webhookSecret": "too-short"},
        {"webhookSecret": "whsec_not base64!!"},
        {"schedule": "every day"},
        {"schedule": "0 0 30 2 *"},
        {"timezone": "Mars/Olympus"},
        {"timezone": None},
        {"workerId": "x"},
        {"enabled": "yes"},
        {"enabled": None},
        {"maxRetries": 11},
        {"maxRetries": -1},
        {"maxRetries": "3"},
        {"timeoutSeconds": 9},
        {"timeoutSeconds": 86401},
        {"overlapPolicy": "replace"},
        {"mcpHeaders": []},
        {"mcpHeaders": {"host": "x"}},
        {"id": "x"},
        {"environmentId": "x"},
        {"nextRunAt": None},
        {"enabledd": True},
    )

    def test_names_the_field_and_changes_nothing(self, cast, url):
        before, client = cast.client(cast.viewer).get(url).json(), cast.client(cast.admin)
        for body in self.BODIES:
            with audited() as rows:
                response = client.patch(url, {"description": "New.", **body})
            assert response.status_code == 400, body
            details = response.json()["details"]
            assert list(details["fieldErrors"]) == list(body)
            assert details["formErrors"] == [], body
            assert rows == [], body
        assert cast.client(cast.viewer).get(url).json() == before

    def test_a_bad_header_value_has_a_dotted_name_and_is_not_echoed(self, cast, url):
        response = cast.client(cast.admin).patch(url, {"mcpHeaders": {"x-key": "planted\n"}})
        assert list(response.json()["details"]["fieldErrors"]) == [
            "mcpHeaders",
            "mcpHeaders.x-key",
        ]
        assert "planted" not in response.content.decode()

    def test_a_deleted_trigger_is_404(self, cast, url):
        Trigger.objects.update(deleted_at="2026-01-01T00:00:00Z", next_run_at=None)
        assert cast.client(cast.admin).patch(url, {"name": "x"}).status_code == 404
