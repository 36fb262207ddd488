"""Turns the result of a key check into lines of text for the operator of the service."""

from collections.abc import Iterator

from pipedai.api.renderers import counted
from workspaces.encryption.check import KeyReport
from workspaces.encryption.keys import masters


def key_lines(report: KeyReport, *, each_data_key: bool = False) -> Iterator[str]:
    """Yields a line for each master key and data key in use, with how much it encrypts."""
    known = [master.id for master in masters()]
    under = report.under_master
    for master_id in dict.fromkeys((*under, *report.authenticators)):
        keys, authenticators = under[master_id], report.authenticators[master_id]
        also = f", {counted(authenticators, 'authenticator')} of staff" if authenticators else ""
        remark = _remark(master_id, keys + authenticators, known)
        yield f"master key {master_id}: {counted(keys, 'data key')}{also}{remark}"
    retired = [key for key in report.data_keys if key.retired]
    yield f"data keys: {len(report.data_keys) - len(retired)} in use, {len(retired)} retired"
    for key in report.data_keys if each_data_key else retired:
        state = "retired, not yet emptied" if key.retired else "in use"
        yield (
            f"data key {key.id} of environment {key.environment_id}: {state},"
            f" under master key {key.master_key_id}, {counted(report.values_under[key.id], 'value')}"
        )


def counted_values(report: KeyReport) -> str:
    """Returns a sentence that says how many values each encrypted column has."""
    return ", ".join(f"{count} of {field}" for field, count in report.values.items())


def broken_lines(report: KeyReport) -> Iterator[str]:
    """Yields a line for each key or value that can't be decrypted, with the reason."""
    for broken in report.broken:
        place = f"environment {broken.environment_id}" if broken.environment_id else "of staff"
        yield (
            f"does not open: {broken.table} {broken.row_id}, {broken.field}"
            f" ({place}): {broken.reason}"
        )
    if more := report.broken_count - len(report.broken):
        yield f"and {more} more"


def does_not_open(report: KeyReport) -> str:
    """Returns the error message of a command that found values which do not open, that is, which can't be decrypted
    with the present keys. The message says how many there are.
    """
    return f"{counted(report.broken_count, 'place')} with something sealed that does not open."


def _remark(master_id: str, count: int, known: list[str]) -> str:
    if master_id not in known:
        return " (not among MASTER_KEYS)"
    if master_id == known[0]:
        return " (the newest)"
    return "" if count else " (it may go from MASTER_KEYS)"
