"""Checks that data keys and sealed values can be decrypted: all of them, or a few for `check_deploy`."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from uuid import UUID

from django.core.checks import CheckMessage, Error, Info
from django.core.management.base import CommandError, OutputWrapper

from accounts.authenticators import probe_authenticators
from pipedai import crypto
from pipedai.api.renderers import counted
from pipedai.sql import Row, fetch_all, in_batches
from workspaces.encryption import keys
from workspaces.encryption.keys import WrappedKey, reason_of
from workspaces.tenant_columns import sealed_fields

_BATCH = 500
# The report names at most this many of the keys and values that can't be decrypted. It counts all of them.
_NAMED = 1_000
# How many data keys are tried for each master key. A few are enough to notice a wrong key; the command `check_keys`
# tries all data keys and all values.
SAMPLE = 100
_KEYS = """
SELECT k.id, k.environment_id, k.id AS key_id, k.wrapped AS key_wrapped, k.master_key_id, k.retired_at
FROM data_key k
WHERE k.id > %(after)s AND (%(environment_id)s::uuid IS NULL OR k.environment_id = %(environment_id)s)
ORDER BY k.id LIMIT %(limit)s
"""
# Finds environments without a data key in use. No value can be encrypted in them.
_WITHOUT_KEY = """
SELECT e.id, e.id AS environment_id FROM environment e
WHERE e.id > %(after)s AND (%(environment_id)s::uuid IS NULL OR e.id = %(environment_id)s)
    AND e.deleted_at IS NULL
    AND NOT EXISTS (SELECT FROM data_key k WHERE k.environment_id = e.id AND k.retired_at IS NULL)
ORDER BY e.id LIMIT %(limit)s
"""
# Values and their data keys are read in one statement: a rotation that runs meanwhile replaces both in one transaction,
# and two statements could read an old value and a new key.
_VALUES = """
SELECT v.id, v.environment_id, v.{column} AS box, k.id AS key_id, k.wrapped AS key_wrapped, k.master_key_id
FROM "{table}" v JOIN data_key k ON k.id = v.{key_column}
WHERE v.id > %(after)s AND (%(environment_id)s::uuid IS NULL OR v.environment_id = %(environment_id)s)
ORDER BY v.id LIMIT %(limit)s
"""
_MASTERS = "SELECT master_key_id, count(*) AS data_keys FROM data_key GROUP BY 1 ORDER BY 1"
# Reads the newest data keys that are encrypted under each master key.
_SAMPLE = """
SELECT id AS key_id, environment_id, wrapped AS key_wrapped, master_key_id FROM (
    SELECT *, row_number() OVER (PARTITION BY master_key_id ORDER BY id DESC) AS place FROM data_key
) ranked
WHERE place <= %(sample)s
"""
_REMEDY = "Set MASTER_KEYS to hold the missing key too, then call `manage.py check_keys`."


@dataclass(frozen=True, slots=True)
class FoundKey:
    """A data key that was read. `retired` means that another key has replaced it, so that it encrypts no new values."""

    id: UUID
    environment_id: UUID
    master_key_id: str
    retired: bool


@dataclass
class KeyReport:
    """The result of a check. `values` counts the sealed values by their column, `values_under` by their data key.
    `broken` has a line for each of the first places with something that can't be decrypted.
    """

    data_keys: list[FoundKey] = field(default_factory=list)
    values: Counter[str] = field(default_factory=Counter)
    values_under: Counter[UUID] = field(default_factory=Counter)
    # How many authenticator secrets of staff users each master key encrypts. They belong to no environment.
    authenticators: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    broken_count: int = 0

    @property
    def under_master(self) -> Counter[str]:
        """Returns how many data keys each master key encrypts: 0 for one that is in MASTER_KEYS but not used."""
        found = Counter({master.id: 0 for master in crypto.masters()})
        found.update(key.master_key_id for key in self.data_keys)
        return found


def check_keys(
    *,
    environment_id: UUID | None = None,
    on_progress: Callable[[int], None] = lambda _: None,
) -> KeyReport:
    """Decrypts every data key and sealed value, in small batches, and changes nothing. What can't be decrypted goes
    into the report. `on_progress` gets the number of values of each batch.
    """
    report = KeyReport()
    for row in _rows(_KEYS, environment_id):
        key = WrappedKey.of(row)
        retired = row["retired_at"] is not None
        found = FoundKey(key.id, row["environment_id"], key.master_key_id, retired)
        report.data_keys.append(found)
        try:
            keys.unwrap(row["environment_id"], key)
        except crypto.CannotOpen as error:
            _keep(report, error, row, "data_key", "wrapped")
    for row in _rows(_WITHOUT_KEY, environment_id):
        _keep(report, crypto.NoDataKey(), row, "environment", "data_key")
    for sealed_field in sealed_fields():
        report.values[str(sealed_field)] = 0
        for row in _rows(sealed_field.into(_VALUES), environment_id):
            report.values[str(sealed_field)] += 1
            report.values_under[row["key_id"]] += 1
            place = keys.place(sealed_field, row["environment_id"], row["id"])
            try:
                opened = keys.unwrap(row["environment_id"], WrappedKey.of(row))
                crypto.unseal(opened, place, bytes(row["box"]))
            except crypto.CannotOpen as error:
                _keep(report, error, row, sealed_field.table, sealed_field.column)
            on_progress(1)
    if environment_id is None:
        for user_id, master_key_id, failed in probe_authenticators():
            report.authenticators[master_key_id] += 1
            if failed is not None:
                of_staff = {"environment_id": None, "id": user_id}
                _keep(report, failed, of_staff, "authenticator", "secret")
    return report


def keys_open() -> CheckMessage:
    try:
        known = {master.id for master in crypto.masters()}
    except ValueError as error:
        return Error(str(error), hint="Set MASTER_KEYS to keys of that form.")
    found = fetch_all(_MASTERS, {})
    if missing := [row for row in found if row["master_key_id"] not in known]:
        names = ", ".join(f"{row['master_key_id']} ({row['data_keys']})" for row in missing)
        return Error(
            f"Data keys lie under master keys that are not at hand: {names}.", hint=_REMEDY
        )
    sample = fetch_all(_SAMPLE, {"sample": SAMPLE})
    if broken := {
        row["master_key_id"]
        for row in sample
        if not keys.opens(row["environment_id"], WrappedKey.of(row))
    }:
        return Error(
            f"Data keys under {', '.join(sorted(broken))} do not open.",
            hint="Set MASTER_KEYS to the key that had this id, then call `manage.py check_keys`.",
        )
    total = sum(row["data_keys"] for row in found)
    return Info(f"{len(sample)} of {total} data keys were tried, and open.")


def key_lines(report: KeyReport, *, each_data_key: bool = False) -> Iterator[str]:
    known = [master.id for master in crypto.masters()]
    under = report.under_master
    for master_id in dict.fromkeys((*under, *report.authenticators)):
        held, authenticators = under[master_id], report.authenticators[master_id]
        also = f", {counted(authenticators, 'authenticator')} of staff" if authenticators else ""
        remark = _remark(master_id, held + authenticators, known)
        yield f"master key {master_id}: {counted(held, 'data key')}{also}{remark}"
    retired = [key for key in report.data_keys if key.retired]
    yield f"data keys: {len(report.data_keys) - len(retired)} in use, {len(retired)} retired"
    for key in report.data_keys if each_data_key else retired:
        state = "retired, not yet emptied" if key.retired else "in use"
        yield (
            f"data key {key.id} of environment {key.environment_id}: {state},"
            f" under master key {key.master_key_id}, {counted(report.values_under[key.id], 'value')}"
        )


def counted_values(report: KeyReport) -> str:
    return ", ".join(f"{count} of {field}" for field, count in report.values.items())


def refuse_broken(report: KeyReport, stderr: OutputWrapper) -> None:
    """Names the places with something that can't be decrypted. Raises CommandError if there is one."""
    for line in report.broken:
        stderr.write(line)
    if more := report.broken_count - len(report.broken):
        stderr.write(f"and {more} more")
    if report.broken_count:
        raise CommandError(
            f"{counted(report.broken_count, 'place')} with something encrypted that does not open."
        )


def _rows(statement: str, environment_id: UUID | None) -> Iterator[Row]:
    params = {"environment_id": environment_id, "limit": _BATCH}
    return chain.from_iterable(in_batches(statement, params))


def _keep(report: KeyReport, error: crypto.CannotOpen, row: Row, table: str, column: str) -> None:
    report.broken_count += 1
    if len(report.broken) < _NAMED:
        place = f"environment {row['environment_id']}" if row["environment_id"] else "of staff"
        report.broken.append(
            f"does not open: {table} {row['id']}, {column} ({place}): {reason_of(error)}"
        )


def _remark(master_id: str, count: int, known: list[str]) -> str:
    if master_id not in known:
        return " (not among MASTER_KEYS)"
    if master_id == known[0]:
        return " (the newest)"
    return "" if count else " (it may go from MASTER_KEYS)"
