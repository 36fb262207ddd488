"""Lists are pages of `{ items, nextCursor }`, which clients walk by signed keyset cursors."""

import base64
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core import signing
from django.utils import timezone

from pipedai.api.errors import Invalid
from pipedai.api.pagination import KeysetPaginator
from pipedai.ids import new_id
from testing.probes.api_schema import is_list
from testing.probes.shapes import A_CURSOR, invalid
from testing.probes.statement_count import counted
from testing.world.cases import cases
from testing.world.routes import ROUTES
from testing.world.undone import undone
from workspaces.models import Workspace

URL = "/api/v1/workspaces"
# It is a part of what signs the cursors of this list without filters.
SALT = f"pipedai.cursor {URL}?"
BAD = invalid({"cursor": ["Not a cursor of this list with these filters."]})
LISTS = [route for route in ROUTES if is_list(route)]


def make_workspaces(cast, count, **values):
    return Workspace.objects.bulk_create(
        [Workspace(name=str(n), created_by=cast.stranger, **values) for n in range(count)]
    )


def walk(client, url, limit):
    """Returns the ids of every page, by following the cursors."""
    separator = "&" if "?" in url else "?"
    pages: list[Any] = []
    cursor = None
    while cursor is not None or not pages:
        more = f"&cursor={cursor}" if cursor else ""
        body = client.get(f"{url}{separator}limit={limit}{more}").json()
        pages.append([item["id"] for item in body["items"]])
        cursor = body["nextCursor"]
    return pages


@pytest.fixture
def client(cast):
    return cast.client(cast.stranger)


class TestPages:
    def test_fifty_unless_asked_otherwise(self, cast, client):
        make_workspaces(cast, 50)  # The cast has one more.
        body = client.get(URL).json()
        assert set(body) == {"items", "nextCursor"}
        assert len(body["items"]) == 50
        assert body["nextCursor"] == A_CURSOR
        rest = client.get(URL, {"cursor": body["nextCursor"]}).json()
        assert len(rest["items"]) == 1
        assert rest["nextCursor"] is None

    def test_at_most_two_hundred(self, cast, client):
        make_workspaces(cast, 200)
        body = client.get(URL, {"limit": "200"}).json()
        assert len(body["items"]) == 200
        assert body["nextCursor"] is not None

    def test_no_cursor_where_a_full_page_is_the_last(self, cast, client):
        make_workspaces(cast, 2)
        assert client.get(URL, {"limit": "3"}).json()["nextCursor"] is None

    def test_any_other_limit_is_refused(self, client):
        for limit in (
            "0", "-1", "201", "1000", "x", "", "1.5", "1e2", "+5", " 5", "0x5", "５", "null"
        ):  # fmt: skip
            response = client.get(URL, {"limit": limit})
            assert response.status_code == 400, limit
            assert response.json() == invalid({"limit": ["Must be a whole number from 1 to 200."]})

    def test_every_list_reads_limit_and_cursor_and_counts_no_offset(self, stage):
        for route in LISTS:
            client, url = route.caller(stage.cast), route.url(stage)
            assert client.get(f"{url}?limit=0").status_code == 400, route
            assert client.get(f"{url}?cursor=x").json() == BAD, route
            with counted() as statements:
                body = client.get(f"{url}?limit=1").json()
                if body["nextCursor"]:
                    client.get(f"{url}?limit=1&cursor={body['nextCursor']}")
            assert set(body) == {"items", "nextCursor"}, route
            # OFFSET 0 passes over no row: it keeps PostgreSQL from joining in another order.
            assert not re.search(r"OFFSET (?!0\b)", str(statements).upper()), route


class TestWalking:
    @cases("limit", [1, 2, 3, 7, 8, 200])
    def test_each_row_comes_once_the_newest_first(self, cast, client, limit):
        now = timezone.now()
        with undone():
            made = [
                make_workspaces(cast, 1, created_at=now + timedelta(seconds=n))[0] for n in range(7)
            ]
            ids = [id_ for page in walk(client, URL, limit) for id_ in page]
        assert ids[:7] == [str(workspace.id) for workspace in reversed(made)]
        assert len(ids) == len(set(ids)) == 8

    @cases("limit", [1, 2, 3])
    def test_rows_of_one_instant_come_by_their_ids(self, cast, client, limit):
        with undone():
            made = make_workspaces(cast, 7, created_at=datetime(2100, 1, 1, tzinfo=UTC))
            ids = [id_ for page in walk(client, URL, limit) for id_ in page]
        assert ids[:7] == sorted((str(workspace.id) for workspace in made), reverse=True)

    def test_rows_that_differ_by_a_microsecond_are_told_apart(self, cast, client):
        moment = datetime(2100, 1, 1, 12, 0, 0, 123456, UTC)
        older, newer = (
            make_workspaces(cast, 1, created_at=moment + timedelta(microseconds=n))[0]
            for n in range(2)
        )
        assert walk(client, URL, 1)[:2] == [[str(newer.id)], [str(older.id)]]

    def test_it_is_stable_while_rows_are_inserted(self, cast, client):
        make_workspaces(cast, 6)
        before = [id_ for page in walk(client, URL, 200) for id_ in page]
        seen: list[Any] = []
        cursor = None
        while cursor is not None or not seen:
            body = client.get(URL, {"limit": 2} | ({"cursor": cursor} if cursor else {})).json()
            seen += [item["id"] for item in body["items"]]
            cursor = body["nextCursor"]
            make_workspaces(cast, 3)
        assert seen == before

    def test_the_row_that_a_cursor_names_may_go(self, cast, client):
        make_workspaces(cast, 4)
        ids = [id_ for page in walk(client, URL, 200) for id_ in page]
        body = client.get(URL, {"limit": 2}).json()
        Workspace.objects.filter(id=ids[1]).update(created_by=cast.owner)
        rest = client.get(URL, {"cursor": body["nextCursor"]}).json()
        assert [item["id"] for item in rest["items"]] == ids[2:]

    def test_the_limit_may_change_on_the_way(self, cast, client):
        make_workspaces(cast, 5)
        body = client.get(URL, {"limit": 1}).json()
        rest = client.get(URL, {"limit": 100, "cursor": body["nextCursor"]}).json()
        assert len(rest["items"]) == 5


@pytest.fixture
def cursor(cast, client):
    """Returns a cursor of the list of the stranger's workspaces."""
    make_workspaces(cast, 3)
    return client.get(URL, {"limit": 1}).json()["nextCursor"]


class TestACursor:
    def refused(self, client, cursor, url=URL):
        response = client.get(url, {"cursor": cursor})
        assert response.status_code == 400
        assert response.json() == BAD
        return True

    @cases("garbage", ["", "x", ":", "a:b", "null", "0", "\x00", "é", "../x", "x" * 5000])
    def test_garbage_is_refused(self, client, garbage):
        assert self.refused(client, garbage)

    def test_every_change_of_a_character_is_noticed(self, client, cursor):
        paginator = KeysetPaginator()
        paginator._salt = SALT
        assert paginator._open(cursor)
        for place, character in enumerate(cursor):
            other = "A" if character != "A" else "B"
            changed = cursor[:place] + other + cursor[place + 1 :]
            with pytest.raises(Invalid):
                paginator._open(changed)
        assert self.refused(client, changed)

    @cases("cut", [slice(1, None), slice(0, -1), slice(0, 20)])
    def test_a_part_of_it_is_refused(self, client, cursor, cut):
        assert self.refused(client, cursor[cut])

    def test_one_that_is_not_signed_is_refused(self, client):
        place = [timezone.now().isoformat(), new_id().hex]
        bare = base64.urlsafe_b64encode(json.dumps(place).encode()).decode()
        assert self.refused(client, bare)
        assert self.refused(client, signing.Signer().sign_object(place))
        assert self.refused(client, signing.Signer(salt="pipedai.cursor").sign_object(place))
        assert self.refused(client, signing.dumps(place))

    @cases("place", [None, [], ["x"], ["x", "y"], [5, "x"], {}, "xy"])
    def test_a_signed_one_of_another_form_is_refused(self, client, place):
        signer = signing.Signer(salt=SALT)
        assert self.refused(client, signer.sign_object(place))

    def test_it_survives_a_rotation_of_the_secret_key(self, cast, client, cursor, settings):
        settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
        settings.SECRET_KEY = "the next secret key, as long as any that an operator would choose"
        assert len(client.get(URL, {"cursor": cursor}).json()["items"]) == 3
        settings.SECRET_KEY_FALLBACKS = []
        assert cast.client(cast.stranger).get(URL, {"cursor": cursor}).json() == BAD

    def test_it_opens_nothing_that_the_caller_does_not_see(self, cast, cursor):
        response = cast.client(cast.owner).get(URL, {"cursor": cursor})
        assert response.status_code == 200
        shown = {item["id"] for item in response.json()["items"]}
        assert shown <= {str(cast.workspace.id)}

    def test_unknown_parameters_do_not_matter(self, client, cursor):
        assert client.get(URL, {"cursor": cursor, "status": "x"}).status_code == 200


class TestTheListOfACursor:
    @pytest.fixture
    def cursor_of(self, cast):
        stage_client = cast.client(cast.owner)
        for _ in range(3):
            stage_client.post(f"/api/v1/triggers/{cast.trigger_id}/run", {})
            cast.add_trigger()

        def cursor_of(path):
            separator = "&" if "?" in path else "?"
            body = stage_client.get(f"/api/v1/{path}{separator}limit=1").json()
            assert body["nextCursor"] is not None
            return body["nextCursor"]

        return cursor_of

    def paths(self, cast):
        environment, trigger = cast.environment.id, cast.trigger_id
        return {
            "triggers": f"environments/{environment}/triggers",
            "runs": f"environments/{environment}/runs",
            "runs of a trigger": f"triggers/{trigger}/runs",
            "keys": f"environments/{environment}/api-keys",
            "audit log": f"environments/{environment}/audit-log",
        }

    def test_is_the_only_one_that_takes_it(self, cast, cursor_of):
        cast.mint("pwk")
        cast.mint("pwk")
        paths = self.paths(cast)
        client = cast.client(cast.owner)
        for made_for, path in paths.items():
            cursor = cursor_of(path)
            for name, other in paths.items():
                status = client.get(f"/api/v1/{other}", {"cursor": cursor}).status_code
                assert status == (200 if name == made_for else 400), (made_for, name)

    def test_is_that_of_one_environment(self, cast, cursor_of):
        cursor = cursor_of(f"environments/{cast.environment.id}/triggers")
        elsewhere = f"/api/v1/environments/{cast.strange_environment.id}/triggers"
        assert cast.client(cast.stranger).get(elsewhere, {"cursor": cursor}).json() == BAD

    @cases(
        ("made_with", "sent_with", "accepted"),
        [
            ("status=queued", "status=queued", True),
            ("status=queued", "status=queued&limit=2", True),
            ("status=queued", "", False),
            ("", "status=queued", False),
            ("status=queued", "status=failed", False),
            ("status=queued", "status=queued&status=failed", False),
            ("status=queued&status=failed", "status=failed&status=queued", True),
            ("from=2020-01-01", "from=2020-01-02", False),
            ("from=2020-01-01", "to=2020-01-01", False),
            ("from=2020-01-01&status=queued", "status=queued&from=2020-01-01", True),
            ("workerId={worker}", "", False),
            ("workerId={worker}", "workerId={worker}", True),
            ("triggerId={trigger}", "workerId={worker}", False),
        ],
    )
    def test_is_bound_to_its_filters(self, cast, cursor_of, made_with, sent_with, accepted):
        names = {"worker": cast.worker.worker_id, "trigger": cast.trigger_id}
        path = f"environments/{cast.environment.id}/runs"
        cursor = cursor_of(f"{path}?{made_with.format(**names)}")
        sent = f"/api/v1/{path}?{sent_with.format(**names)}&cursor={cursor}"
        response = cast.client(cast.owner).get(sent)
        assert response.status_code == (200 if accepted else 400)
        assert accepted or response.json() == BAD
