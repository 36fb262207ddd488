"""A trigger's secret headers are checked, and no table, answer or log has them in plaintext."""

import json
from uuid import UUID

import pytest
from django.db import IntegrityError

from pipedai.crypto import CannotOpen
from testing.probes.shapes import invalid
from testing.probes.tables import columns_with
from testing.world.cases import cases
from testing.world.sealed import headers_of
from triggers.models import Run, Trigger
from triggers.models.trigger import MCP_HEADERS
from workers.models import Worker
from workspaces.encryption import keys
from workspaces.encryption.keys import WrappedKey
from workspaces.models import DataKey

BODY = {"name": "x", "prompt": "x", "mcpUrl": "https://mcp.example/v1"}
HEADERS = {"Authorization": "Bearer planted-header-value", "x-api-key": "planted-api-key"}
WEBHOOK_SECRET = "planted-webhook-secret"
PLANTED = ("planted-header-value", "planted-api-key", WEBHOOK_SECRET)


@pytest.fixture
def create(cast):
    url = f"/api/v1/environments/{cast.environment.id}/triggers"
    client = cast.client(cast.owner)
    return lambda **body: client.post(url, {**BODY, **body})


class TestWhichMayBeSet:
    NAME = "One of the names is not a valid header name."
    VALUE = "Must be a string that is a valid header value."
    OBJECT = "Must be an object of header names and values."

    @pytest.mark.parametrize(
        "headers",
        [
            {"x-api-key": "v"},
            {"X-Api-Key": "v", "Authorization": "Bearer a b=c"},
            {"!#$%&'*+.^_`|~09aZ-": "v"},
            {"x": "tab\tand space inside"},
            {"x": "!~" + "".join(map(chr, range(0x21, 0x7F)))},
            {"x" * 192: "v" * 8000},
            {f"x-{n}": "v" for n in range(100)},
        ],
        ids=["one", "two", "odd-name", "blanks-inside", "all-characters", "8-KiB", "many"],
    )
    def test_these(self, create, headers):
        response = create(mcpHeaders=headers)
        assert response.status_code == 201
        assert response.json()["hasMcpHeaders"] is True

    @cases(
        "name",
        [
            "", " ", "a b", "a:", "a\n", "a\r\nb", "é", "a\x7f", "(x)", "a/b", "a,b",
            "sk-planted secret", "x\ty", "Bearer planted:value",
        ],
    )  # fmt: skip
    def test_an_invalid_name_is_refused_without_saying_it(self, create, name):
        response = create(mcpHeaders={"fine": "v", name: "v"})
        assert response.status_code == 400
        assert response.json() == invalid({"mcpHeaders": [self.NAME]})
        assert "planted" not in response.content.decode()

    @cases(
        "name",
        [
            "Host", "host", "Content-Length", "CONNECTION", "Transfer-Encoding",
            "Proxy-Authorization", "proxy-x",
        ],
    )  # fmt: skip
    def test_one_that_steers_the_connection_is_refused(self, create, name):
        response = create(mcpHeaders={name: "v"})
        assert response.json() == invalid({"mcpHeaders": [f"{name} may not be set."]})

    @cases(
        "value",
        [
            "", " ", " v", "v ", "a\nb", "a\r\nX-Injected: 1", "a\x01", "é", "a\x7f",
            5, True, None, ["v"], {"a": "v"},
        ],
    )  # fmt: skip
    def test_an_invalid_value_is_named_by_its_header(self, create, value):
        response = create(mcpHeaders={"fine": "v", "x-api-key": value, "X-Two": value})
        assert response.status_code == 400
        assert response.json() == invalid(
            {
                "mcpHeaders": [f"x-api-key: {self.VALUE}", f"X-Two: {self.VALUE}"],
                "mcpHeaders.x-api-key": [self.VALUE],
                "mcpHeaders.X-Two": [self.VALUE],
            }
        )

    def test_no_value_is_echoed(self, create):
        response = create(mcpHeaders={"x-api-key": "planted\nvalue"})
        assert "planted" not in response.content.decode()

    @cases("headers", ["x: y", 5, True, [], [["x", "y"]]])
    def test_anything_but_an_object_is_refused(self, create, headers):
        assert create(mcpHeaders=headers).json() == invalid({"mcpHeaders": [self.OBJECT]})

    def test_two_names_alike_but_for_case_are_refused(self, create):
        response = create(mcpHeaders={"x-api-key": "1", "X-API-Key": "2"})
        assert response.json() == invalid({"mcpHeaders": ["Two names are alike but for case."]})

    @cases("headers", [{"x" * 193: "v" * 8000}, {f"x-{n:03}": "v" * 100 for n in range(80)}])
    def test_more_than_8_kib_in_all_are_refused(self, create, headers):
        response = create(mcpHeaders=headers)
        assert response.json() == invalid({"mcpHeaders": ["Must not be longer than 8 KiB in all."]})


class TestAtRest:
    @pytest.fixture
    def trigger_id(self, cast, create):
        """Makes a trigger with both secrets, whose run was handed out, claimed and completed."""
        response = create(
            mcpHeaders=HEADERS,
            webhookSecret=WEBHOOK_SECRET,
            webhookUrl="https://hooks.example/",
            workerId=str(cast.worker.worker_id),
        )
        trigger_id = response.json()["id"]
        client, worker = cast.client(cast.owner), cast.worker_client()
        url = f"/api/v1/workers/{cast.worker.worker_id}"
        run_id = client.post(f"/api/v1/triggers/{trigger_id}/run", {}).json()["id"]
        handed_out = worker.get(f"{url}/poll").json()["runs"]
        assert handed_out[0]["mcpHeaders"] == HEADERS
        worker.post(f"{url}/runs/{run_id}/claim", {})
        worker.post(f"{url}/runs/{run_id}/complete", {"status": "failed", "faultClass": "infra"})
        assert Run.objects.filter(trigger_id=trigger_id).count() == 2
        return UUID(trigger_id)

    def test_no_column_of_any_table_holds_one(self, trigger_id):
        assert columns_with(*PLANTED) == []

    def test_the_search_would_find_one(self, trigger_id):
        """The search finds a secret as text, as JSON and as bytes."""
        for column, value in {
            "description": "planted-here",
            "mcp_headers": b"..planted-here..",
        }.items():
            Trigger.objects.filter(id=trigger_id).update(**{column: value})
            assert columns_with("planted-here") == [f"trigger.{column}"]
            Trigger.objects.filter(id=trigger_id).update(description="", mcp_headers=b"x")

    def test_no_read_tells_one(self, cast, trigger_id):
        environment = f"environments/{cast.environment.id}"
        run_id = Run.objects.filter(trigger_id=trigger_id).latest("queued_at").id
        for path in (
            f"triggers/{trigger_id}",
            f"triggers/{trigger_id}/runs",
            f"runs/{run_id}",
            f"{environment}/triggers",
            f"{environment}/runs",
            f"{environment}/workers",
            f"{environment}/audit-log",
            f"{environment}/api-keys",
        ):
            response = cast.client(cast.owner).get(f"/api/v1/{path}")
            assert response.status_code == 200
            for planted in PLANTED:
                assert planted not in response.content.decode(), path

    def test_nobody_but_its_worker_is_handed_one(self, cast, trigger_id):
        other = cast.register("host-2")
        body = cast.worker_client(other).get(f"/api/v1/workers/{other.worker_id}/poll").json()
        assert body["runs"] == []


def boxes(trigger_id):
    row = Trigger.objects.get(id=trigger_id)
    key = row.mcp_key
    return row, WrappedKey(key.id, bytes(key.wrapped), key.master_key_id)


class TestOneAlone:
    """`PATCH` with `mcpHeadersMode: "merge"`."""

    @pytest.fixture
    def patch(self, cast, create):
        url = f"/api/v1/triggers/{create(mcpHeaders=HEADERS).json()['id']}"
        return lambda **body: cast.client(cast.admin).patch(url, body)

    def test_it_is_replaced_in_any_case_added_or_taken_away(self, patch):
        both = {"x-api-key": "planted-api-key", "authorization": "planted-newer"}
        for given, names, kept in (
            ({"authorization": "planted-newer"}, ["x-api-key", "authorization"], both),
            ({"X-New": "planted-new"}, ["x-api-key", "authorization", "X-New"], None),
            ({"X-API-KEY": None, "x-new": None, "x-none": None}, ["authorization"], {"authorization": "planted-newer"}),
            ({"Authorization": None}, None, None),
            ({"X-New": "planted-new"}, ["X-New"], {"X-New": "planted-new"}),
        ):  # fmt: skip
            answer = patch(mcpHeaders=given, mcpHeadersMode="merge")
            assert answer.status_code == 200
            assert answer.json()["mcpHeaderNames"] == names
            assert answer.json()["hasMcpHeaders"] is bool(names)
            if kept:
                assert headers_of(answer.json()["id"]) == kept
        assert columns_with(*PLANTED, "planted-new") == []

    def test_what_is_as_it_was_changes_nothing_and_null_takes_all_away(self, patch):
        before = patch(name="y").json()
        for same in ({}, {"X-None": None}, {"x-api-key": "planted-api-key"}):
            assert patch(mcpHeaders=same, mcpHeadersMode="merge").json() == before
        assert patch(mcpHeadersMode="merge").json() == before
        assert patch(mcpHeaders=None, mcpHeadersMode="merge").json()["hasMcpHeaders"] is False

    def test_nothing_is_merged_with_headers_for_another_server(self, patch):
        moved = {"mcpUrl": "https://other.example/", "mcpHeadersMode": "merge"}
        assert patch(mcpHeaders={"X-New": "planted-new"}, **moved).json()["mcpHeaderNames"] == [
            "X-New"
        ]

    def test_all_of_them_together_are_bounded(self, patch):
        refused = patch(mcpHeaders={"X-Long": "v" * 8150}, mcpHeadersMode="merge")
        assert refused.json() == invalid({"mcpHeaders": ["Must not be longer than 8 KiB in all."]})

    def test_a_null_needs_the_mode_which_a_new_trigger_has_not(self, create, patch):
        problem = "A value may be null only with mcpHeadersMode merge."
        for mode in ({}, {"mcpHeadersMode": "replace"}):
            refused = patch(mcpHeaders={"X-Api-Key": None}, **mode)
            assert refused.json() == invalid({"mcpHeaders": [problem]})
        assert create(mcpHeaders={"X-Api-Key": None}).status_code == 400
        assert create(mcpHeadersMode="merge").status_code == 400

    def test_what_does_not_open_is_not_merged_but_may_be_replaced(self, patch):
        Trigger.objects.filter(mcp_key__isnull=False).update(mcp_headers=b"no headers")
        refused = patch(mcpHeaders={"X-New": "planted-new"}, mcpHeadersMode="merge")
        assert (refused.status_code, refused.json()["code"]) == (503, "encryption_unavailable")
        assert patch(mcpHeaders={"X-New": "planted-new"}).json()["mcpHeaderNames"] == ["X-New"]

    def test_names_are_for_operators(self, cast, patch):
        trigger = patch(name="y").json()
        lists = f"/api/v1/environments/{cast.environment.id}/triggers"
        for who, names in ((cast.operator, list(HEADERS)), (cast.viewer, None)):
            client = cast.client(who)
            one = client.get(f"/api/v1/triggers/{trigger['id']}").json()
            assert one == {**trigger, "mcpHeaderNames": names}
            for include in ("", "?include=recent"):
                items = client.get(f"{lists}{include}").json()["items"]
                assert names in [each["mcpHeaderNames"] for each in items]
                assert any(each["mcpHeaderNames"] for each in items) is bool(names)


class TestAMovedCiphertext:
    @pytest.fixture
    def pair(self, create):
        """Makes two triggers of one environment, each with both secrets."""
        return [
            UUID(create(mcpHeaders={"x": value}, webhookSecret=value * 3).json()["id"])
            for value in ("planted-1", "planted-2")
        ]

    def test_it_opens_where_it_was_sealed(self, cast, pair):
        row, key = boxes(pair[0])
        opened = json.loads(
            keys.unseal(MCP_HEADERS, cast.environment.id, row.id, bytes(row.mcp_headers), key)
        )
        assert opened == {"x": "planted-1"}

    def test_it_does_not_open_in_another_row(self, cast, pair):
        row, key = boxes(pair[0])
        with pytest.raises(CannotOpen):
            keys.unseal(MCP_HEADERS, cast.environment.id, pair[1], bytes(row.mcp_headers), key)

    def test_it_does_not_open_in_another_field(self, cast, pair):
        row, key = boxes(pair[0])
        with pytest.raises(CannotOpen):
            keys.unseal(MCP_HEADERS, cast.environment.id, row.id, bytes(row.webhook_secret), key)

    def test_it_does_not_open_in_another_environment(self, cast, pair):
        row, key = boxes(pair[0])
        with pytest.raises(CannotOpen):
            keys.unseal(
                MCP_HEADERS, cast.strange_environment.id, row.id, bytes(row.mcp_headers), key
            )

    def test_the_database_refuses_the_data_key_of_another_environment(self, cast, pair):
        foreign = DataKey.objects.get(environment=cast.strange_environment)
        with pytest.raises(IntegrityError, match="mcp_key"):
            Trigger.objects.filter(id=pair[0]).update(mcp_key_id=foreign.id)

    def test_a_run_whose_headers_do_not_open_is_not_handed_out(self, cast, create, caplog):
        """A run must not be handed out without its headers. The other runs are handed out."""
        made = [
            create(mcpHeaders={"x": "v"}, workerId=str(cast.worker.worker_id)).json()["id"]
            for _ in range(2)
        ]
        for trigger_id in made:
            cast.client(cast.owner).post(f"/api/v1/triggers/{trigger_id}/run", {})
        Worker.objects.update(max_concurrency=5)
        row = Trigger.objects.get(id=made[1])
        Trigger.objects.filter(id=made[0]).update(mcp_headers=row.mcp_headers, mcp_key=row.mcp_key)
        body = cast.worker_client().get(f"/api/v1/workers/{cast.worker.worker_id}/poll").json()
        assert [run["triggerId"] for run in body["runs"]] == [made[1]]
        alarms = [r.msg for r in caplog.records if "cannot_open" in str(r.msg)]
        assert [(alarm["row_id"], alarm["field"]) for alarm in alarms] == [(made[0], "mcp_headers")]
        assert "planted" not in json.dumps([str(alarm) for alarm in alarms])
