"""GET /whoami"""

from accounts.models import Session
from pipedai.api.renderers import iso_time
from testing.world.cast import bearer
from workspaces.models import ApiKey

URL = "/api/v1/whoami"


def test_each_kind_of_caller_learns_who_and_where_it_is(cast):
    where = {"environmentId": str(cast.environment.id), "workspaceId": str(cast.workspace.id)}
    nowhere = dict.fromkeys(where)
    client = cast.client(cast.viewer)
    session = Session.objects.latest("id")
    assert client.get(URL).json() == {
        "kind": "user",
        "id": str(cast.viewer.id),
        "name": cast.viewer.email,
        "role": None,
        **nowhere,
        "expiresAt": iso_time(session.expires_at),
    }
    key = bearer(cast.mint("pwk", role="viewer"))
    row = ApiKey.objects.filter(kind="pwk").latest("id")
    ApiKey.objects.filter(id=row.id).update(expires_at="2099-01-01T00:00:00Z")
    assert key.get(URL).json() == {
        "kind": "api_key",
        "id": str(row.id),
        "name": row.name,
        "role": "viewer",
        **where,
        "expiresAt": "2099-01-01T00:00:00.000Z",
    }
    assert cast.worker_client().get(URL).json() == {
        "kind": "worker",
        "id": str(cast.worker.worker_id),
        "name": "host-1",
        "role": None,
        **where,
        "expiresAt": None,
    }
    host = bearer(cast.host("host-9").operator_token)
    row = ApiKey.objects.get(kind="hos")
    assert "host-9" in row.name
    assert host.get(URL).json() == {
        "kind": "host",
        "id": str(row.id),
        "name": row.name,
        "role": None,
        **where,
        "expiresAt": None,
    }


def test_a_token_that_registers_a_worker_is_refused_and_told_why(cast):
    answer = bearer(cast.mint("wrk")).get(URL)
    assert answer.status_code == 401
    assert answer.json()["error"].endswith("is not accepted on this endpoint.")
    assert ApiKey.objects.get(kind="wrk", consumed_at=None).last_used_at is None
