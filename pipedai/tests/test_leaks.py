"""The watch over all tests finds a planted secret in an answer, a log line, a table, a dump or a file."""

import base64
import logging

import httpx
import pytest
from django.apps import apps
from django.db import connection

from accounts.models import User
from accounts.passwords import hash_password, is_password_of
from pipedai import crypto
from pipedai.api import tokens
from pipedai.sql import execute
from testing.probes.leaks import Watch, leaks_in, tokens_in, watching
from testing.probes.planted import Planted, noting, plant, planted
from testing.probes.tables import contents, contents_as_text
from testing.probes.whole_session import LogTail, dump_of
from testing.world.cases import cases
from testing.world.cast import session_cookie
from testing.world.undone import undone
from testing.world.users import PASSWORD, UserFactory
from triggers.models import Trigger

TOKEN = tokens.mint("pwk").value
SECRET = 'a "planted" value'


@pytest.fixture
def known():
    known = Planted()
    known.add(SECRET)
    return known


@pytest.fixture
def other(known):
    """Returns a watch of this test's own, whose findings fail no test."""
    watch = Watch(known)
    watch.setFormatter(logging.Formatter())
    return watch


class TestWhatIsKnown:
    @cases("kind", tokens.KINDS)
    def test_tokens_of_every_registered_kind_by_their_checksum(self, kind):
        token = tokens.mint(kind).value
        assert tokens_in(f"x {token} y") == [token]
        assert tokens_in(token[:-1] + ("a" if token[-1] != "a" else "b")) == []

    def test_a_kind_that_is_registered_later_as_well(self, monkeypatch):
        monkeypatch.setitem(tokens.KINDS, "new", "A new one (new_)")
        token = tokens.mint("new").value
        assert leaks_in("here", token, Planted()) != []

    def test_a_session(self, db):
        cookie = session_cookie(UserFactory.create())
        assert tokens_in(f"auth_token={cookie};") == [cookie]

    def test_what_every_test_knows(self, settings):
        with planted() as known:
            assert known.found_in(f"{PASSWORD} {settings.SECRET_KEY}") != []
            assert len(known.found_in(settings.MASTER_KEYS[0])) == 1

    def test_what_is_sealed_hashed_or_made_a_key(self, cast, monkeypatch):
        with planted() as known, noting():
            cast.add_trigger(
                mcp_headers={"Authorization": "Bearer planted-credential"},
                webhook_secret="planted-webhook-secret",
            )
            hash_password("planted password")
            is_password_of(None, "a planted guess")
            key = crypto.new_data_key("1").key
        for secret in (
            "planted-credential", "planted-webhook-secret", "planted password", "a planted guess",
        ):  # fmt: skip
            assert known.found_in(f"<{secret}>") == [secret]
        assert known.found_in(base64.b64encode(key).decode()) == [key.hex()]

    @pytest.mark.parametrize(
        "spelled",
        [
            SECRET,
            r"a \"planted\" value",
            '(1,"a ""planted"" value",t)',
            "a%20%22planted%22%20value",
            SECRET.encode().hex(),
            base64.b64encode(SECRET.encode()).decode(),
            base64.b64encode(f"x{SECRET}y".encode()).decode(),
            base64.b64encode(f"xx{SECRET}y".encode()).decode(),
        ],
    )
    def test_a_secret_in_other_spellings(self, known, spelled):
        assert known.found_in(f"- {spelled} -") == [SECRET]


class TestALeakIsSeen:
    def test_in_a_log_line(self, other):
        for message in ("fine", f"not {TOKEN}", f"nor {SECRET}"):
            other.emit(logging.LogRecord("x", logging.INFO, "x", 1, message, (), None))
        assert len(other.leaks) == 2

    def test_in_the_log_of_this_process(self):
        with watching() as seeing:
            plant("a planted word")
            # Only this watch gets the record, so that the watch over this test finds nothing.
            seeing.handle(logging.LogRecord("x", logging.INFO, "x", 1, "a planted word", (), None))
        assert len(seeing.leaks) == 1

    @pytest.mark.parametrize(
        ("path", "may"),
        [
            ("/api/v1/workers/register", True),
            ("/api/v1/environments/01a2-b/api-keys", True),
            ("/api/v1/environments/01a2-b/api-keys/c", False),
            ("/api/v1/auth/me", False),
        ],
    )
    def test_in_an_answer_unless_it_is_the_one_that_mints_it(self, other, path, may):
        other.look_at_answer(path, "", f'{{"token": "{TOKEN}"}}')
        assert (other.leaks == []) is may

    @pytest.mark.parametrize(
        ("path", "may"), [("workers/01a2-b/poll", True), ("triggers/01a2-b", False)]
    )
    def test_in_an_answer_unless_it_is_the_poll_that_hands_it_out(self, other, path, may):
        other.look_at_answer(f"/api/v1/{path}", SECRET, f'{{"x-api-key": "{SECRET}"}}')
        assert (other.leaks == []) is may

    def test_in_an_answer_over_http(self, db, watch):
        answer = httpx.MockTransport(lambda request: httpx.Response(200, text=TOKEN))
        httpx.Client(transport=answer).get("http://127.0.0.1/api/v1/workspaces")
        assert len(watch.leaks) == 1
        watch.leaks.clear()

    def test_of_what_was_sent_to_be_sealed_by_another_process(self, db, watch):
        told = httpx.MockTransport(
            lambda request: httpx.Response(200, text="so planted-over-there")
        )
        body = {"mcpHeaders": {"x-api-key": "planted-over-there"}, "name": "unwatched-name"}
        httpx.Client(transport=told).post("http://127.0.0.1/api/v1/triggers", json=body)
        assert len(watch.leaks) == 1
        watch.leaks.clear()

    def test_but_not_a_token_that_the_caller_took_for_a_name(self, other):
        other.look_at_answer("/api/v1/workspaces", f"name {TOKEN}", TOKEN)
        assert other.leaks == []

    @pytest.mark.parametrize(
        "leak",
        [TOKEN, SECRET, SECRET.encode().hex()],
        ids=["token", "secret", "hex"],
    )
    def test_in_a_text_column(self, cast, other, leak):
        Trigger.objects.update(description=f"see {leak}")
        other.look_at_tables()
        assert [leak.partition(":")[0] for leak in other.leaks] == ["table trigger"]
        Trigger.objects.update(description="")

    def test_in_a_column_of_bytes(self, cast, other):
        execute(
            "UPDATE worker SET token_digest = %(leak)s", {"leak": b"\0" + SECRET.encode() + b"\xff"}
        )
        other.look_at_tables()
        assert [leak.partition(":")[0] for leak in other.leaks] == ["table worker"]
        execute("UPDATE worker SET token_digest = NULL", {})

    def test_in_an_audit_row_of_any_partition(self, cast, other):
        execute(
            "INSERT INTO audit_entry (id, action, actor_type, target_type, metadata)"
            " VALUES (gen_random_uuid(), 'x', 'system', 'x', jsonb_build_object('x', %(leak)s::text))",
            {"leak": SECRET},
        )
        other.look_at_tables()
        assert [leak.partition(":")[0] for leak in other.leaks] == ["table audit_entry"]

    def test_in_a_log_file(self, other, tmp_path):
        (tmp_path / "deep").mkdir()
        (tmp_path / "deep" / "worker.log").write_text(f"so {SECRET}")
        (tmp_path / "worker.json").write_text(TOKEN)  # The token may be in this file.
        other.directory = tmp_path
        other.look_at_log_files()
        assert len(other.leaks) == 1

    def test_in_a_dump(self, own_database, known):
        Trigger.objects.exists()
        with connection.cursor() as cursor:
            cursor.execute(f"COMMENT ON TABLE trigger IS 'so {SECRET.encode().hex()}'")
        assert len(leaks_in("dump", dump_of(own_database), known)) == 1
        User.objects.create(email="ada@example.com", name=f"it is {SECRET}")
        dump = dump_of(own_database)
        assert SECRET in dump
        User.objects.all().delete()

    def test_in_what_a_log_grew_by(self, tmp_path):
        path = tmp_path / "server.txt"
        path.write_text("old\n")
        tail = LogTail(path, path.stat().st_size)
        with path.open("a") as file:
            file.write("new\n")
        assert tail.read() == "new\n"
        path.write_text("re")  # The log was replaced.
        assert tail.read() == "re"


def test_the_watch_over_this_very_test_sees_what_it_leaves(cast, watch):
    Trigger.objects.update(description=TOKEN)
    watch.look_at_tables()
    assert len(watch.leaks) == 1
    watch.leaks.clear()
    Trigger.objects.update(description="")


def test_what_a_case_leaves_is_seen_before_it_is_undone(cast, watch):
    watch.is_thorough = True
    with undone():
        Trigger.objects.update(description=TOKEN)
    assert len(watch.leaks) == 1
    watch.leaks.clear()


def test_a_test_has_planted_what_is_not_its_casts(cast, watch):
    """bin/test searches the tables only after such a test."""
    assert not watch.has_planted
    cast.add_trigger(webhook_secret="planted-by-this-test")
    assert watch.has_planted


class TestReadingTheDatabase:
    """Tests compare all rows before and after, so a table that is not read would let anything pass."""

    def of(self, cast):
        texts = contents_as_text()
        assert {User._meta.db_table, "trigger", "worker", "audit_entry"} <= {*texts}
        assert str(cast.trigger_id) in texts["trigger"]
        rows = contents()
        assert {table for table, counted in rows.items() if counted} >= {*texts}
        assert {*rows} >= {model._meta.db_table for model in apps.get_models()}

    def test_in_a_transaction(self, cast):
        self.of(cast)

    def test_after_a_commit(self, committed_cast):
        self.of(committed_cast)
