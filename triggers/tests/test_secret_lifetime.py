"""A trigger's secrets are in memory as plaintext only as long as they are needed, and nothing shows them."""

import gc
import json
import traceback
from uuid import UUID

import pytest
from django.core.cache import cache
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from pipedai import crypto
from pipedai.events import SYSTEM
from pipedai.ids import new_id
from testing.world.cast import TEST_ACTOR, Cast
from testing.world.sealed import HEADERS, SECRET, add_sealed_trigger, key_in_use, opened, tamper
from triggers.models import Trigger
from triggers.models.trigger import MCP_HEADERS, WEBHOOK_SECRET
from triggers.runs.handout import HandedOut, hand_out_runs
from triggers.services import rotate_mcp_token
from workspaces.encryption import keys
from workspaces.encryption.keys import Sealed, WrappedKey


@pytest.fixture
def trigger_id(cast: Cast) -> UUID:
    made = add_sealed_trigger(cast)
    assert cast.client(cast.owner).post(f"/api/v1/triggers/{made}/run").status_code == 201
    return made


def poll(cast: Cast):
    return cast.worker_client().get(f"/api/v1/workers/{cast.worker.worker_id}/poll")


def alive() -> list[HandedOut]:
    """Returns the handed-out runs to which something in this process still refers."""
    gc.collect()
    return [each for each in gc.get_objects() if type(each) is HandedOut]


def test_nobody_keeps_what_a_poll_has_answered(cast: Cast, trigger_id: UUID):
    answer = poll(cast)
    assert answer.json()["runs"][0]["mcpHeaders"] == HEADERS
    del answer
    assert alive() == []


def test_the_scan_for_it_finds_what_is_kept(cast: Cast, trigger_id: UUID):
    kept = hand_out_runs(worker_id=cast.worker.worker_id, capacity=1, approved=True, actor=SYSTEM)
    assert alive() == kept


def test_no_cache_has_them(cast: Cast, trigger_id: UUID):
    poll(cast)
    assert "planted" not in repr(getattr(cache, "_cache", {}))


def test_no_statement_has_them(cast: Cast, trigger_id: UUID):
    """The database's log can't show a secret that no SQL statement contains."""
    with CaptureQueriesContext(connection) as captured:
        add_sealed_trigger(cast)
        rotate_mcp_token(trigger_id=trigger_id, mcp_headers=HEADERS, actor=TEST_ACTOR)
        assert poll(cast).json()["runs"][0]["mcpHeaders"] == HEADERS
        call_command("rotate_keys", "--data")
        assert opened(trigger_id) == (HEADERS, SECRET)
    sent = json.dumps([query["sql"] for query in captured.captured_queries])
    assert "mcp_headers" in sent
    for planted in ("planted", b"planted".hex()):
        assert planted not in sent


def test_no_repr_shows_them_or_a_key(cast: Cast, trigger_id: UUID):
    (run,) = hand_out_runs(worker_id=cast.worker.worker_id, capacity=1, approved=True, actor=SYSTEM)
    key = key_in_use(cast.environment.id)
    sealed = keys.seal(WEBHOOK_SECRET, cast.environment.id, trigger_id, SECRET.encode())
    shown = repr(
        [
            run,
            sealed,
            Sealed(b"planted", key.id),
            WrappedKey(key.id, b"planted", "k1"),
            crypto.MasterKey("k1", b"planted"),
            crypto.DataKey(str(key.id), b"planted"),
            Trigger.objects.get(id=trigger_id),
            key,
        ]
    )
    assert "planted" not in shown
    assert repr(sealed.box) not in shown
    assert "k1" in shown


@pytest.mark.parametrize("how", ["bit flip", "unknown master key", "data key flipped"])
def test_no_error_tells_of_them(cast: Cast, trigger_id: UUID, how: str):
    tamper(how, trigger_id, cast=cast)
    with pytest.raises(crypto.CannotOpen) as error:
        opened(trigger_id)
    assert error.value.args == ()
    assert (error.value.__cause__, error.value.__suppress_context__) == (None, True) or (
        error.value.__context__ is None
    )
    assert "planted" not in "".join(traceback.format_exception(error.value))


def test_sealing_outside_a_transaction_is_a_mistake_that_says_nothing_of_them(own_database: str):
    with pytest.raises(RuntimeError) as error:
        keys.seal(MCP_HEADERS, new_id(), new_id(), json.dumps(HEADERS).encode())
    assert str(error.value) == "sealing needs a transaction"
