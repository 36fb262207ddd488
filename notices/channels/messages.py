"""Makes the message of a notice: the request of a webhook, the text for Slack, or a mail (SPEC §14)."""

import json
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from notices.channels import consent
from notices.channels.announcements import Digest
from notices.channels.consent import Standing, standing_columns, standing_of
from notices.channels.models import SECRET, URL, Channel
from notices.states import CONFIRM, DIGEST, RECOVERED, TEST, headline, how_it_was
from pipedai.api.renderers import compact_json
from pipedai.crypto import CannotOpen
from pipedai.links import link_to_page
from pipedai.outgoing import CannotSend, Mail, NeverSend, Post, compose, foreign, signed_post
from pipedai.outgoing.mails import Own
from pipedai.sql import Row
from triggers.explain.clock_words import duration_words, zoned_words
from workspaces.encryption import keys
from workspaces.encryption.sealed_fields import SealedField

# The columns that the claim of a notice reads besides the notice's own. The URL and the secret are those that the
# channel has now. The run's output is read here and not copied into the notice, because it can have 64 KiB and
# thousands of notices may be pending.
READS: Final = f"""
c.kind, c.name AS channel_name, c.url, c.secret, e.name AS environment_name, result.output::text AS run_output,
(NOT c.enabled OR c.deleted_at IS NOT NULL OR e.deleted_at IS NOT NULL) AS is_off,
e.deleted_at IS NOT NULL AS is_gone,
uk.id AS url_key_id, uk.wrapped AS url_key_wrapped, uk.master_key_id AS url_master_key_id,
sk.id AS secret_key_id, sk.wrapped AS secret_key_wrapped, sk.master_key_id AS secret_master_key_id,
coalesce((SELECT t.timezone FROM trigger t WHERE t.id = i.subject_id),
    (SELECT t.timezone FROM run r JOIN trigger t ON t.id = r.trigger_id
        WHERE r.id = d.run_id AND r.environment_id = d.environment_id AND d.event = 'approval_requested'),
    (SELECT b.timezone FROM budget b WHERE b.id = i.subject_id), 'UTC') AS timezone,
(SELECT a.id FROM asked_address a
    WHERE a.address = d.address AND a.environment_id = d.environment_id) AS asked_id,
{standing_columns("d.environment_id", "d.address")}
"""  # noqa: S608
JOINS: Final = """
JOIN channel c ON c.id = d.channel_id
LEFT JOIN data_key uk ON uk.id = c.url_key_id
LEFT JOIN data_key sk ON sk.id = c.secret_key_id
LEFT JOIN incident i ON i.id = d.incident_id AND i.environment_id = d.environment_id
LEFT JOIN run_result result
    ON result.run_id = d.run_id AND result.environment_id = d.environment_id AND c.kind = 'webhook'
"""

_STOPPED: Final = {
    Standing.REFUSED: "the address wants no notices",
    Standing.ASKED: "the address has not confirmed",
    Standing.UNKNOWN: "the address is no verified member's",
}
# These replacements keep texts of others from making links and mentions. Slack reads the first three characters as
# markup. Mattermost takes the same requests and mentions whoever stands after an @, which an invisible space after the
# @ prevents.
_SLACK_ESCAPES: Final = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "@\u200b"})
_AGENT: Final = "PipedAI-Notices/1"


def message_of(row: Row) -> Post | Mail:
    """Returns the message of a claimed notice. Raises NeverSend if the channel is off or the address gets no mail now,
    and CannotSend if the channel's URL or secret can't be decrypted.
    """
    if row["event"] == CONFIRM:
        return _question(row)
    if row["is_off"]:
        raise NeverSend("the channel is disabled or deleted")
    if row["kind"] == Channel.Kind.EMAIL:
        standing = standing_of(row)
        if not standing.gets_mail:
            raise NeverSend(_STOPPED[standing])
        return _mail(row)
    url = _opened(row, "url", URL)
    if row["kind"] == Channel.Kind.SLACK:
        text = compact_json({"text": slack_text(row)})
        headers = {"Content-Type": "application/json", "User-Agent": _AGENT}
        return Post(url, text.encode(), headers)
    return signed_post(
        url,
        message_id=f"msg_{row['id'].hex}",
        body=_with_output(row),
        secret=None if row["secret"] is None else _opened(row, "secret", SECRET),
        now=row["claimed_at"],
    )


def _with_output(row: Row) -> str:
    """Returns the body of a notice with the `output` of its run. It is null if the run has none or was pruned."""
    body = json.loads(row["body"])
    if body.get("run") is None:
        return str(row["body"])
    output = None if row["run_output"] is None else json.loads(row["run_output"])
    return compact_json({**body, "run": {**body["run"], "output": output}})


def slack_text(row: Row) -> str:
    """Returns the text for Slack, with a link to the page that it is about. Texts of others in it make no links, also
    of bare URLs, mentions or new lines.
    """
    title, lines = _content(row)
    text = "\n".join([f"{title} ({foreign(row['environment_name'])})", *map(foreign, lines)])
    return f"{text.translate(_SLACK_ESCAPES)}\n{_page(row)}"


def _content(row: Row) -> tuple[str, list[str]]:
    """Returns the title, in which names of others make no links, and the lines that follow it."""
    body = json.loads(row["body"])
    if row["event"] == DIGEST:
        digest = Digest.of(row["body"])
        more = digest.count - len(digest.lines)
        return _digest_title(digest), [*digest.lines, *([f"and {more} more"] if more else [])]
    if row["event"] == TEST:
        return f"This is a test of the channel {foreign(row['channel_name'])}", []
    title, cause, story = (
        _title(body, foreign(body["subject"]["name"])),
        _cause(row, body),
        _story(row, body),
    )
    if story:
        return title, [story, f"What had happened: {cause}"]
    return title, [cause] if cause else []


def _page(row: Row) -> str:
    """Returns the URL of the page where somebody sees what the notice is about, and can do something about it."""
    body = json.loads(row["body"])
    if row["event"] == TEST:
        return link_to_page("channel", row["channel_id"])
    if row["event"] == DIGEST:
        return link_to_page("attention", row["environment_id"])
    if body["approval"]:
        return link_to_page("approval", body["approval"]["id"])
    if body["run"] and not row["event"].endswith(RECOVERED):
        return link_to_page("run", body["run"]["id"])
    subject = body["subject"]
    if subject["type"] == "budget":
        return link_to_page("money", row["environment_id"])
    return link_to_page(subject["type"], subject["id"])


def _mail(row: Row) -> Mail:
    body = json.loads(row["body"])
    values: dict[str, Any] = {
        "environment": row["environment_name"],
        "channel": row["channel_name"],
        "title": Own(_mail_title(row, body)),
        "cause": _cause(row, body),
        "story": Own(_story(row, body)),
        "since": Own(_words(row, body, "openedAt")),
        "until": Own(_words(row, body, "closedAt")),
    }
    if row["event"] == DIGEST:
        digest = Digest.of(row["body"])
        values |= {"lines": list(digest.lines), "more": digest.count - len(digest.lines)}
    why = Own("You get this mail because your address is in a channel of the environment.")
    stop, headers = "", {}
    # Without a mail server, members' addresses that nobody has proved get mails too (as files), and have no row.
    if row["asked_id"] is not None:
        stop, headers = (
            consent.link_of(row["asked_id"]),
            consent.unsubscribe_headers(row["asked_id"]),
        )
    return compose(
        "notices/notice",
        to=row["address"],
        subject="{title} ({environment})",
        values={**values, "stop": Own(stop)},
        link=_page(row),
        why=why,
        headers=headers,
    )


def _mail_title(row: Row, body: dict[str, Any]) -> str:
    if row["event"] == DIGEST:
        return _digest_title(Digest.of(row["body"]))
    if row["event"] == TEST:
        return "This is a test of your channel"
    return _title(body, foreign(body["subject"]["name"]))


def _title(body: dict[str, Any], name: str) -> str:
    incident = body["incident"]
    is_reminder = bool(incident) and body["at"] not in (incident["openedAt"], incident["closedAt"])
    return headline(body["event"], name, reminder=is_reminder)


def _digest_title(digest: Digest) -> str:
    return f"{digest.count} notices were held back"


def _cause(row: Row, body: dict[str, Any]) -> str:
    """Returns what has happened as one line. It names what others wrote, and the caller takes links out of it."""
    if approval := body["approval"]:
        until = zoned_words(datetime.fromisoformat(approval["expiresAt"]), row["timezone"])
        return f"It wants to call {approval['tool']}. Nothing happens until somebody approves it, by {until}."
    return str(((body["incident"] or {}).get("cause") or {}).get("message") or "")


def _story(row: Row, body: dict[str, Any]) -> str:
    """Returns for a recovery how long it took, as a sentence; for other notices nothing."""
    if not row["event"].endswith(RECOVERED):
        return ""
    opened, closed = (
        datetime.fromisoformat(body["incident"][each]) for each in ("openedAt", "closedAt")
    )
    begun, ended = (_words(row, body, each) for each in ("openedAt", "closedAt"))
    return f"{how_it_was(row['event'])} for {duration_words(closed - opened)}, from {begun} until {ended}."


def _words(row: Row, body: dict[str, Any], name: str) -> str:
    """Returns a time of the notice's incident in the time zone of the trigger or budget that it is about, else in UTC.
    It is empty if the incident has no such time.
    """
    iso = (body["incident"] or {}).get(name)
    return zoned_words(datetime.fromisoformat(iso), row["timezone"]) if iso else ""


def _question(row: Row) -> Mail:
    """Returns the one mail that asks the owner of an address whether they want notices."""
    if row["is_refused"] or row["asked_id"] is None or row["is_gone"]:
        raise NeverSend(_STOPPED[Standing.REFUSED])
    return compose(
        "notices/question",
        to=row["address"],
        subject="Do you want notices of {environment}?",
        values={"environment": row["environment_name"], "asked_by": json.loads(row["body"])["by"]},
        link=consent.link_of(row["asked_id"]),
        why=Own("If you do nothing, you get no other mail of this environment."),
        headers=consent.unsubscribe_headers(row["asked_id"]),
    )


def _opened(row: Row, column: str, field: SealedField) -> str:
    names = {"key_id": f"{column}_key_id", "key_wrapped": f"{column}_key_wrapped"}
    key = {name: row[source] for name, source in names.items()}
    key["master_key_id"] = row[f"{column}_master_key_id"]
    channel_id: UUID = row["channel_id"]
    box = bytes(row[column])
    try:
        return keys.unseal(
            field, row["environment_id"], channel_id, box, keys.WrappedKey.of(key)
        ).decode()
    except CannotOpen:
        raise CannotSend(f"the channel's {column} does not open") from None
