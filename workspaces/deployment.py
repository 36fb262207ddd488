"""A probe for `check_deploy`: the master keys decrypt this database's data keys."""

from django.core.checks import CheckMessage, Error, Info

from pipedai.sql import fetch_all
from workspaces.encryption import keys
from workspaces.encryption.keys import WrappedKey

# How many data keys are tried for each master key. A few are enough to notice a wrong key; the command `check_keys`
# tries all data keys and all values.
SAMPLE = 100

_MASTERS = "SELECT master_key_id, count(*) AS data_keys FROM data_key GROUP BY 1 ORDER BY 1"
# Reads the newest data keys that are encrypted under each master key.
_SAMPLE = """
SELECT id AS key_id, environment_id, wrapped AS key_wrapped, master_key_id FROM (
    SELECT *, row_number() OVER (PARTITION BY master_key_id ORDER BY id DESC) AS place FROM data_key
) ranked
WHERE place <= %(sample)s
"""
_REMEDY = "Set MASTER_KEYS to hold the missing key too, then call `manage.py check_keys`."


def keys_open() -> CheckMessage:
    try:
        known = {master.id for master in keys.masters()}
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
