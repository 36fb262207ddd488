"""Rotations of master and data keys change the right rows, keep all values, and report on it."""

import itertools
from io import StringIO

import pytest
from django.conf import settings as django_settings
from django.core.management import CommandError, call_command
from django.db import IntegrityError, connection, transaction
from django.test import override_settings

from audit.models import AuditEntry
from pipedai import timeouts
from pipedai.ids import new_id
from pipedai.sql import execute, fetch_all
from testing.processes.racing import Started, accepted, at_once
from testing.world.cast import TEST_ACTOR
from testing.world.sealed import (
    HEADERS,
    SECRET,
    add_sealed_trigger,
    key_in_use,
    master_key,
    opened,
    tamper,
)
from triggers.models import Trigger
from triggers.services import TRIGGERS, rotate_mcp_token
from workspaces.encryption.check import check_keys
from workspaces.encryption.rotation import rotate_data_keys, rotate_master_key
from workspaces.management.commands import rotate_keys
from workspaces.models import DataKey, DataKeyRotation
from workspaces.services import create_environment


@pytest.fixture
def trigger_id(cast):
    return add_sealed_trigger(cast)


@pytest.fixture
def new_master(cast, settings):
    """Adds a newer master key to the one that wraps all data keys."""
    settings.MASTER_KEYS = [master_key("new"), *settings.MASTER_KEYS]


def command(*arguments):
    out = StringIO()
    call_command(*arguments, stdout=out, stderr=out)
    return out.getvalue()


def audited(action):
    entries = AuditEntry.objects.filter(action=action).order_by("id")
    return [(entry.environment_id, entry.actor_type, entry.metadata) for entry in entries]


def rows():
    return fetch_all("SELECT * FROM data_key ORDER BY id", {}), fetch_all(
        "SELECT id, mcp_headers, mcp_key_id, webhook_secret, webhook_key_id FROM trigger ORDER BY id",
        {},
    )


@pytest.mark.usefixtures("new_master")
class TestANewMasterKey:
    def test_every_data_key_lies_under_it_and_no_value_changes(self, cast, trigger_id, settings):
        keys, values = rows()
        assert "2 data keys of 2 environments moved to master key new." in command(
            "rotate_keys", "--master"
        )
        assert rows()[1] == values
        assert {key["id"] for key in rows()[0]} == {key["id"] for key in keys}
        settings.MASTER_KEYS = [master_key("new")]  # the old master key is removed
        assert opened(trigger_id) == (HEADERS, SECRET)
        assert check_keys().broken == []

    def test_each_environment_has_an_audit_row_and_a_repeat_has_none(self, cast, trigger_id):
        for _ in range(2):
            rotate_master_key()
        metadata = {"wrappedUnder": ["dev", "new"], "dataKeys": 1}
        expected = {cast.environment.id, cast.strange_environment.id}
        found = audited("master-key.rotated")
        assert len(found) == 2
        assert {environment_id for environment_id, _, _ in found} == expected
        assert {actor for _, actor, _ in found} == {"system"}
        assert [told for _, _, told in found] == [metadata, metadata]

    def test_an_environments_keys_have_one_audit_row_together(self, cast, settings):
        new, old = settings.MASTER_KEYS
        settings.MASTER_KEYS = [old, new]
        tamper("wrong data key", add_sealed_trigger(cast), cast=cast)
        settings.MASTER_KEYS = [new, old]
        assert DataKey.objects.filter(environment=cast.environment).count() == 2
        rotate_master_key()
        found = {environment_id: told for environment_id, _, told in audited("master-key.rotated")}
        assert len(audited("master-key.rotated")) == len(found) == 2
        assert found[cast.environment.id] == {"wrappedUnder": ["dev", "new"], "dataKeys": 2}

    def test_a_dry_run_says_what_there_is_to_do_and_changes_nothing(self, cast, trigger_id):
        before = rows()
        said = command("rotate_keys", "--master", "--dry-run")
        assert "2 data keys of 2 environments would move from master key dev to new." in said
        assert rows() == before
        command("rotate_keys", "--master")
        assert "Nothing to do" in command("rotate_keys", "--master", "--dry-run")

    def test_keys_of_deleted_environments_move_too(self, cast, settings):
        execute("UPDATE environment SET deleted_at = now()", {})
        rotate_master_key()
        settings.MASTER_KEYS = [master_key("new")]
        assert check_keys().broken == []

    def test_a_process_that_still_wraps_under_the_old_one_is_told_of(self, cast, monkeypatch):
        """A process that was not restarted makes an environment while the command runs."""

        def meanwhile(**arguments):
            done = rotate_master_key(**arguments)
            old_master = django_settings.MASTER_KEYS[1]
            with override_settings(MASTER_KEYS=[old_master]):
                create_environment(
                    workspace_id=cast.workspace.id,
                    name="new",
                    user_id=cast.owner.id,
                    actor=TEST_ACTOR,
                )
            return done

        monkeypatch.setattr(f"{rotate_keys.__name__}.rotate_master_key", meanwhile)
        with pytest.raises(CommandError, match="1 data key under an older master key again"):
            command("rotate_keys", "--master")


class TestNewDataKeys:
    def test_values_move_to_a_new_key_and_the_old_one_is_gone(self, cast, trigger_id):
        old = key_in_use(cast.environment.id)
        boxes = rows()[1]
        said = command("rotate_keys", "--data")
        assert "2 new data keys, 2 values re-encrypted, 2 old data keys deleted." in said
        assert ", 1 of trigger.mcp_headers, 1 of trigger.webhook_secret, " in said
        assert key_in_use(cast.environment.id).id != old.id
        assert DataKey.objects.filter(environment=cast.environment).count() == 1
        assert rows()[1] != boxes
        assert opened(trigger_id) == (HEADERS, SECRET)
        assert not DataKeyRotation.objects.exists()

    def test_nothing_that_an_owner_sees_changes(self, cast, trigger_id):
        url = f"/api/v1/triggers/{trigger_id}"
        before = cast.client(cast.owner).get(url).json()
        rotate_data_keys()
        assert cast.client(cast.owner).get(url).json() == before

    def test_one_environment_alone(self, cast, trigger_id):
        strange = key_in_use(cast.strange_environment.id)
        command("rotate_keys", "--data", "--environment", str(cast.environment.id))
        assert key_in_use(cast.strange_environment.id).id == strange.id
        ((environment_id, _, metadata),) = audited("data-key.rotated")
        assert environment_id == cast.environment.id
        assert metadata["dataKeyId"][1] == str(key_in_use(cast.environment.id).id)

    def test_more_values_than_one_batch_holds(self, cast, trigger_id, monkeypatch):
        triggers = [trigger_id, *(add_sealed_trigger(cast) for _ in range(6))]
        monkeypatch.setattr(
            "workspaces.encryption.rotation._ROWS",
            "SELECT v.id FROM {table} v WHERE v.environment_id = %(environment_id)s"
            " AND v.{key_column} = %(key_id)s AND v.id > %(after)s ORDER BY v.id LIMIT 3",
        )
        assert rotate_data_keys().values == 14
        assert {str(opened(each)) for each in triggers} == {str((HEADERS, SECRET))}

    def test_values_of_deleted_triggers_move_too(self, cast, trigger_id):
        TRIGGERS.delete(trigger_id, actor=TEST_ACTOR)
        assert rotate_data_keys().values == 1
        assert check_keys().broken == []

    def test_a_dry_run_changes_nothing(self, cast, trigger_id):
        before = rows()
        assert "2 environments to go through, 2 values to re-encrypt." in command(
            "rotate_keys", "--data", "--dry-run"
        )
        assert rows() == before
        assert not DataKeyRotation.objects.exists()

    def test_with_nothing_sealed_the_key_is_new_all_the_same(self, cast):
        assert "2 new data keys, 0 values" in command("rotate_keys", "--data")

    def test_a_clock_that_was_put_back_does_not_make_it_replace_its_own_keys(self, cast):
        DataKeyRotation.objects.create(started_at="2100-01-01T00:00:00Z")
        assert rotate_data_keys().new_keys == 2
        DataKeyRotation.objects.create(started_at="2100-01-01T00:00:00Z")
        assert rotate_data_keys().new_keys == 0


class TestTheCommandLine:
    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            ([], "one of the arguments --master --data is required"),
            (["--master", "--data"], "not allowed with argument"),
            (["--master", "--environment", str(new_id())], "go with --data alone"),
            (["--master", "--replace-lost"], "go with --data alone"),
            (["--data", "--environment", "x"], "invalid UUID value"),
            (["--data", "--environment", str(new_id())], "There is no such environment."),
        ],
    )
    def test_what_makes_no_sense_is_refused_with_a_sentence(self, db, arguments, sentence):
        with pytest.raises(CommandError, match=sentence):
            command("rotate_keys", *arguments)


class TestTheDatabase:
    def test_it_keeps_a_data_key_that_a_value_lies_under(self, cast, trigger_id):
        key = key_in_use(cast.environment.id)
        DataKey.objects.filter(id=key.id).update(retired_at="2026-01-01T00:00:00Z")
        for column in ("mcp", "webhook"):
            with (
                pytest.raises(IntegrityError, match=f"trigger_{column}_key_in_environment"),
                transaction.atomic(),
            ):
                execute("DELETE FROM data_key WHERE id = %(id)s", {"id": key.id})
            if column == "mcp":
                Trigger.objects.update(mcp_headers=None, mcp_key=None)
        Trigger.objects.update(webhook_secret=None, webhook_key=None)
        assert execute("DELETE FROM data_key WHERE id = %(id)s", {"id": key.id}) == 1

    def test_it_keeps_the_one_in_use_also_when_nothing_lies_under_it(self, cast):
        key = key_in_use(cast.strange_environment.id)
        with pytest.raises(IntegrityError, match="is in use"), transaction.atomic():
            execute("DELETE FROM data_key WHERE id = %(id)s", {"id": key.id})

    def test_it_does_not_let_all_be_emptied(self, cast):
        execute("SET CONSTRAINTS ALL IMMEDIATE", {})
        with (
            pytest.raises(Exception, match="cannot truncate a table referenced"),
            transaction.atomic(),
        ):
            execute("TRUNCATE data_key", {})


class Killed(BaseException):
    """Ends a call at once, as a kill does: only a rollback follows."""


def killed_before(statement, call):
    """Runs the call and stops it after so many statements. Tells whether it ended before that."""
    sent = 0

    def count(execute, *arguments):
        nonlocal sent
        sent += 1
        if sent > statement:
            raise Killed
        return execute(*arguments)

    try:
        with connection.execute_wrapper(count):
            call()
    except Killed:
        return False
    return True


@pytest.mark.long
class TestKilledAtEachStatement:
    """A rotation is killed at each of its statements, one after the other."""

    @pytest.fixture
    def triggers(self, committed_cast):
        return [add_sealed_trigger(committed_cast) for _ in range(3)]

    def test_new_data_keys_are_gone_on_with_and_nothing_begins_anew(self, triggers):
        kills = 0
        while not killed_before(kills, rotate_data_keys):
            kills += 1
            assert [opened(each) for each in triggers] == [(HEADERS, SECRET)] * 3
            rotate_data_keys()
            assert [opened(each) for each in triggers] == [(HEADERS, SECRET)] * 3
            assert not DataKeyRotation.objects.exists()
            assert not DataKey.objects.filter(retired_at__isnull=False).exists()
            assert len(audited("data-key.rotated")) == 2 * kills
        assert kills > 30

    def test_a_new_master_key_is_gone_on_with(self, triggers, settings):
        kills = 0
        for newest in itertools.count():
            settings.MASTER_KEYS = [master_key(f"m{newest}"), *settings.MASTER_KEYS]
            if killed_before(kills, rotate_master_key):
                break
            kills += 1
            assert [opened(each) for each in triggers] == [(HEADERS, SECRET)] * 3
            rotate_master_key()
            assert {key.master_key_id for key in DataKey.objects.all()} == {f"m{newest}"}
            assert len(audited("master-key.rotated")) == 2 * kills
        settings.MASTER_KEYS = settings.MASTER_KEYS[:1]
        assert check_keys().broken == []
        assert kills > 4


class TestAtOnce:
    def test_several_rotations_of_both_kinds(self, committed_cast, settings):
        triggers = [add_sealed_trigger(committed_cast) for _ in range(20)]
        settings.MASTER_KEYS = [master_key("new"), *settings.MASTER_KEYS]
        accepted(
            at_once(
                rotate_data_keys,
                rotate_master_key,
                rotate_data_keys,
                lambda: rotate_data_keys(environment_id=committed_cast.environment.id),
                rotate_master_key,
            )
        )
        rotate_data_keys()
        rotate_master_key()
        settings.MASTER_KEYS = [master_key("new")]
        assert [opened(each) for each in triggers] == [(HEADERS, SECRET)] * 20
        assert not DataKey.objects.filter(retired_at__isnull=False).exists()

    def test_a_key_is_retired_only_when_nobody_is_about_to_write_under_it(self, committed_cast):
        trigger_id = add_sealed_trigger(committed_cast)
        with transaction.atomic():
            rotate_mcp_token(trigger_id=trigger_id, mcp_headers={"x": "late"}, actor=TEST_ACTOR)
            rotation = Started(rotate_data_keys)
            rotation.wait_until_blocked()
        rotation.answer()
        assert opened(trigger_id) == ({"x": "late"}, SECRET)
        assert not DataKey.objects.filter(retired_at__isnull=False).exists()

    def test_who_waits_for_a_rotation_seals_under_the_new_key(self, committed_cast):
        trigger_id = add_sealed_trigger(committed_cast)
        old = key_in_use(committed_cast.environment.id)
        with transaction.atomic():
            rotate_data_keys(environment_id=committed_cast.environment.id)
            writer = Started(
                lambda: rotate_mcp_token(
                    trigger_id=trigger_id, mcp_headers={"x": "late"}, actor=TEST_ACTOR
                )
            )
            writer.wait_until_blocked()
        writer.answer()
        assert opened(trigger_id) == ({"x": "late"}, SECRET)
        assert Trigger.objects.get(id=trigger_id).mcp_key_id != old.id

    def test_a_new_trigger_waits_for_a_rotation_and_is_made(self, committed_cast):
        with transaction.atomic():
            rotate_data_keys(environment_id=committed_cast.environment.id)
            writer = Started(lambda: add_sealed_trigger(committed_cast))
            writer.wait_until_blocked()
        (made,) = accepted([writer.answer()])
        assert opened(made) == (HEADERS, SECRET)


class TestALockThatSomebodyHolds:
    """Another writer hangs in its transaction and holds a lock that the rotation needs."""

    @pytest.fixture
    def held(self, committed_cast, monkeypatch):
        """Returns `hold`, `say`, and the list of the messages that were said.

        `hold` executes a locking statement in another transaction. `say` takes the rotation's messages,
        and the second one ends that transaction.
        """
        monkeypatch.setattr(timeouts, "LOCK_SECONDS", 0.05)
        monkeypatch.setattr(timeouts, "FIRST_PAUSE_SECONDS", 0.01)
        other = connection.copy()
        said = []

        def hold(statement):
            other.set_autocommit(False)
            other.cursor().execute(statement)

        def say(line):
            said.append(line)
            if len(said) == 2:
                other.rollback()

        yield hold, say, said
        other.close()

    def test_new_data_keys_wait_for_it_and_say_so(self, committed_cast, held):
        hold, say, said = held
        old = key_in_use(committed_cast.environment.id)
        hold("SELECT FROM data_key FOR SHARE")
        assert rotate_data_keys(say=say).new_keys == 2
        assert key_in_use(committed_cast.environment.id).id != old.id
        assert len(said) == 2
        assert "holds the data key of environment " in said[0]
        assert "trying again in 0.02 s" in said[1]

    def test_re_encryption_waits_for_it_and_moves_each_value_once(self, committed_cast, held):
        hold, say, said = held
        trigger_id = add_sealed_trigger(committed_cast)
        hold(f"SELECT FROM trigger WHERE id = '{trigger_id}' FOR UPDATE")
        assert rotate_data_keys(say=say).values == 2
        assert opened(trigger_id) == (HEADERS, SECRET)
        assert [
            f"holds values of environment {committed_cast.environment.id}" in s for s in said
        ] == [
            True,
            True,
        ]

    def test_a_new_master_key_waits_for_it_too(self, committed_cast, held, settings):
        hold, say, said = held
        settings.MASTER_KEYS = [master_key("new"), *settings.MASTER_KEYS]
        hold("SELECT FROM data_key FOR SHARE")
        done = rotate_master_key(say=say)
        assert (done.data_keys, done.environments, len(said)) == (2, 2, 2)
        assert len(audited("master-key.rotated")) == 2
