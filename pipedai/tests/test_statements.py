"""No SQL statement and no parameter contains a secret, so a database that logs them logs no secret.

PostgreSQL's owner may let it log statements, parameters, and rows that break a constraint. We can't configure every
server, so we send it secrets only hashed or sealed.
"""

import pytest
from django.db import connection

from pipedai.api import tokens
from testing.world.cast import bearer, browser
from testing.world.users import PASSWORD

PLANTED = "planted-value-that-no-pattern-knows"
NEW_PASSWORD = "another planted passphrase"


@pytest.fixture
def statements(db):
    """Collects everything that is sent to the database, as text."""
    sent = []

    def keep(execute, sql, params, many, context):
        sent.append(f"{sql} {params!r}")
        return execute(sql, params, many, context)

    with connection.execute_wrapper(keep):
        yield sent


def test_no_secret_is_sent_to_the_database(cast, statements):
    secrets = [PASSWORD, NEW_PASSWORD, PLANTED]
    client = browser()
    account = {"email": "new@example.com", "password": PASSWORD}
    for path, body in (
        ("register", account),
        ("login", account),
        ("login", {**account, "password": PLANTED}),
    ):
        client.post(f"/api/v1/auth/{path}", body)
        secrets.append(client.cookies["auth_token"].value)
    change = {"currentPassword": PASSWORD, "newPassword": NEW_PASSWORD}
    assert client.post("/api/v1/auth/change-password", change).status_code == 204
    secrets.append(client.cookies["auth_token"].value)

    environment = f"/api/v1/environments/{cast.environment.id}"
    owner = browser()
    owner.post("/api/v1/auth/login", {"email": cast.owner.email, "password": PASSWORD})
    secrets.append(owner.cookies["auth_token"].value)
    minted = {
        prefix: owner.post(f"{environment}/api-keys", {"name": "x", "prefix": prefix, **role}).json()["token"]
        for prefix, role in (("pwk", {"role": "admin"}), ("wrk", {}))
    }  # fmt: skip
    registered = browser().post(
        "/api/v1/workers/register", {"token": minted["wrk"], "hostname": "h", "os": "linux", "version": "1"}
    )  # fmt: skip
    secrets += [*minted.values(), registered.json()["workerToken"]]

    system = bearer(minted["pwk"])
    trigger = system.post(
        f"{environment}/triggers",
        {
            "name": "x",
            "prompt": "x",
            "mcpUrl": "https://mcp.example/",
            "mcpHeaders": {"x-anything": PLANTED},
            "webhookUrl": "https://hooks.example/",
            "webhookSecret": f"{PLANTED} for webhooks",
            "workerId": str(cast.worker.worker_id),
        },
    ).json()
    rotation = {"mcpHeaders": {"x-anything": f"{PLANTED} the second"}}
    assert (
        system.post(f"/api/v1/triggers/{trigger['id']}/rotate-mcp-token", rotation).status_code
        == 200
    )
    assert system.post(f"/api/v1/triggers/{trigger['id']}/run").status_code == 201
    worker = bearer(cast.worker.worker_token)
    handed_out = worker.get(f"/api/v1/workers/{cast.worker.worker_id}/poll").json()["runs"]
    assert handed_out[0]["mcpHeaders"] == rotation["mcpHeaders"]
    unknown = tokens.mint("pwk").value
    bearer(unknown).get(f"{environment}/triggers")

    secrets += [unknown, cast.worker.worker_token]
    assert len(statements) > 50
    assert [secret for secret in secrets for text in statements if secret in text] == []
