"""Makes the message of a queued notice: the request of a webhook, the text for Slack, or a mail. Records on the channel
whether its messages are delivered.
"""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from notices.channels import consent
from notices.channels.announcements import Digest, read_body
from notices.channels.consent import Standing, standing_columns, standing_of
from notices.channels.texts import LONG, Fact, failure_facts, long_text
from notices.models import SECRET, URL, Channel, Notice, NoticeAttempt
from notices.states import (
    CONFIRM,
    DIGEST,
    RECOVERED,
    SUMMARY,
    TEST,
    headline,
    how_it_was,
)
from pipedai.api.renderers import compact_json
from pipedai.crypto import CannotOpen
from pipedai.events import SYSTEM, Event, emit
from pipedai.links import link_to_page
from pipedai.outgoing.kinds import Attempt, CannotSend, Kind, NeverSend, SendStatus
from pipedai.outgoing.mails import Mail, Own, compose, foreign
from pipedai.outgoing.posts import Post, signed_post
from pipedai.sql import Row, execute
from triggers.explain.answers import duration_words, zoned_words
from workspaces.encryption import keys
from workspaces.tenant_columns import SealedField

# The columns that the claim of a notice reads from other tables. The URL and the secret are the channel's present ones.
# The run's output is read here and not copied into the notice, because thousands of notices with 64 KiB each may be
# pending.
READS: Final = f"""
c.kind, c.name AS channel_name, c.url, c.secret, e.name AS environment_name, result.output::text AS run_output,
(NOT c.enabled OR c.deleted_at IS NOT NULL OR e.deleted_at IS NOT NULL) AS is_off,
e.deleted_at IS NOT NULL AS is_gone,
uk.id AS url_key_id, uk.wrapped AS url_key_wrapped, uk.master_key_id AS url_master_key_id,
sk.id AS secret_key_id, sk.wrapped AS secret_key_wrapped, sk.master_key_id AS secret_master_key_id,
coalesce((SELECT t.timezone FROM trigger t WHERE t.id = i.subject_id),
    (SELECT b.timezone FROM budget b WHERE b.id = i.subject_id),
    (SELECT t.timezone FROM run r JOIN trigger t ON t.id = r.trigger_id WHERE r.id = d.run_id), 'UTC') AS timezone,
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
    ON result.run_id = d.run_id AND result.environment_id = d.environment_id
    AND (c.kind = 'webhook' OR d.event = 'run.result')
"""

_STOPPED: Final = {
    Standing.REFUSED: "the e-mail address wants no notices",
    Standing.ASKED: "the e-mail address has not confirmed",
    Standing.UNKNOWN: "the e-mail address is no confirmed member's",
}
# These replacements stop texts of users and runs from making links and mentions. Slack reads the first three characters
# as markup. Mattermost takes the same requests, and reads a name after an @ as a mention, unless a space comes between.
_SLACK_ESCAPES: Final = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "@\u200b"})
_AGENT: Final = "PipedAI-Notices/1"
# The largest size of the text of a result or a summary: in characters in Slack, in bytes in a mail. With the links
# below the text, a mail has 20 KiB at most.
_MAX_SLACK: Final = 3_000
_MAX_MAIL: Final = 18 * 1024


def message_of(row: Row) -> Post | Mail:
    """Returns the message of a claimed notice. Raises NeverSend if the channel is off or the address gets no mail now,
    and CannotSend if the channel's URL or secret can't be decrypted.
    """
    if row["event"] == CONFIRM:
        return _question(row)
    if row["is_off"]:
        raise NeverSend("the channel is paused or deleted")
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
    """Returns the body of a notice with its link, and with the `output` of its run. The output is null if the run has
    none or was pruned.
    """
    body = {**read_body(row["body"]), "link": _page(row)}
    if body["run"] is not None:
        output = None if row["run_output"] is None else json.loads(row["run_output"])
        body["run"]["output"] = output
    return compact_json(body)


def slack_text(row: Row) -> str:
    """Returns the text for Slack, with a link to the page that the notice is about. What users and runs wrote can't
    make links (not even a bare URL), mentions or new lines in it.
    """
    link = _page(row)
    if row["event"] in LONG:
        most = _MAX_SLACK - len(link)
        title, lines = long_text(
            row, most, lambda line: len(line.translate(_SLACK_ESCAPES)), most_items=5
        )
        return "\n".join([*(line.translate(_SLACK_ESCAPES) for line in (title, *lines)), link])
    told = _content(row)
    facts = [f"{label}: {value}" for label, value in told["facts"]]
    more = [f"and {told['more']} more"] if told["more"] else []
    lines = [*filter(None, [told["story"]]), *facts, *told["lines"], *more]
    text = "\n".join(
        [f"{told['title']} ({foreign(row['environment_name'])})", *map(foreign, lines)]
    )
    return f"{text.translate(_SLACK_ESCAPES)}\n{link}"


def _content(row: Row) -> dict[str, Any]:
    """Returns the content of a notice: the `title`, in which names that users chose make no links, `story` and `facts`.
    A digest also has `lines`, and `more`, the number of notices that it only counts.
    """
    told = {"title": "", "story": "", "facts": [], "lines": [], "more": 0}
    if row["event"] == DIGEST:
        digest = Digest.of(row["body"])
        lines, more = list(digest.lines), digest.count - len(digest.lines)
        title = f"{digest.count} notices were held back"
        if digest.since is not None:
            title += f" since {zoned_words(datetime.fromisoformat(digest.since))}"
        return {**told, "title": title, "lines": lines, "more": more}
    if row["event"] == TEST:
        is_mail = row["kind"] == Channel.Kind.EMAIL
        channel = "your channel" if is_mail else f"the channel {foreign(row['channel_name'])}"
        return {**told, "title": f"This is a test of {channel}"}
    body = read_body(row["body"])
    title = _title(body, foreign(body["subject"]["name"]))
    return {**told, "title": title, "story": _story(row, body), "facts": _facts(row, body)}


def _page(row: Row) -> str:
    """Returns the URL of the page where somebody sees what the notice is about, and can do something about it."""
    body = read_body(row["body"])
    if row["event"] == TEST:
        return link_to_page("channel", row["channel_id"])
    if row["event"] in (DIGEST, SUMMARY):
        return link_to_page("attention", environment=row["environment_id"])
    if body["approval"]:
        return link_to_page("approval", body["approval"]["id"])
    if body["run"] and not row["event"].endswith(RECOVERED):
        return link_to_page("run", body["run"]["id"])
    return link_to_page(body["subject"]["type"], body["subject"]["id"], row["environment_id"])


def _mail(row: Row) -> Mail:
    stop, headers = "", {}
    # Without a mail server (mails are written as files) members' unconfirmed addresses get mails too. They have no row,
    # so their mails have no link to stop them.
    if row["asked_id"] is not None:
        stop, headers = (
            consent.link_of(row["asked_id"]),
            consent.unsubscribe_headers(row["asked_id"]),
        )
    how: dict[str, Any] = {
        "to": row["address"],
        "link": _page(row),
        "why": Own(
            "You get this mail because your e-mail address is in a channel of the environment."
        ),
        "headers": headers,
    }
    if row["event"] in LONG:
        title, lines = long_text(row, _MAX_MAIL, lambda line: len(line.encode()), most_items=20)
        values: dict[str, Any] = {"title": Own(title), "text": Own("\n".join(lines))}
        values |= {"channel": row["channel_name"], "stop": Own(stop)}
        return compose("notices/plain", subject="{title}", values=values, is_plain=True, **how)
    told = _content(row)
    values = {
        **told,
        "environment": row["environment_name"],
        "channel": row["channel_name"],
        "title": Own(told["title"]),
        "story": Own(told["story"]),
    }
    return compose(
        "notices/notice",
        subject="{title} ({environment})",
        values={**values, "stop": Own(stop)},
        **how,
    )


def _title(body: dict[str, Any], name: str) -> str:
    if body["approval"]:
        is_reminder = body["at"] != body["approval"]["createdAt"]
    else:
        incident = body["incident"]
        is_reminder = incident and body["at"] not in (incident["openedAt"], incident["closedAt"])
    return headline(body["event"], name, reminder=bool(is_reminder))


def _facts(row: Row, body: dict[str, Any]) -> list[Fact]:
    """Returns the facts about an approval, or about an incident and its run. A recovery has a `_story` instead."""
    if approval := body["approval"]:
        until = zoned_words(datetime.fromisoformat(approval["expiresAt"]), row["timezone"])
        return [
            (Own("Wants to call"), approval["tool"]),
            (Own("Can be decided until"), Own(until)),
            (Own("Who may decide"), Own(f"{approval['approverRole']} or above")),
        ]
    incident, is_over = body["incident"], row["event"].endswith(RECOVERED)
    if incident is None:
        return []
    cause = (Own("What had happened" if is_over else "Cause"), incident["cause"]["message"])
    if is_over:
        return [cause]
    times = [
        (Own(label), Own(words))
        for label, name in (("Since", "openedAt"), ("Until", "closedAt"))
        if (words := _words(row, body, name))
    ]
    return [cause, *times, *failure_facts(body["run"], row["timezone"])]


def _story(row: Row, body: dict[str, Any]) -> str:
    """Returns a sentence about how long the incident of a recovery lasted, or about what happens to an approval until
    somebody decides. It is empty for other notices.
    """
    if body["approval"]:
        return "Nothing is done until somebody approves the call."
    if not row["event"].endswith(RECOVERED):
        return ""
    opened, closed = (
        datetime.fromisoformat(body["incident"][each]) for each in ("openedAt", "closedAt")
    )
    begun, ended = (_words(row, body, each) for each in ("openedAt", "closedAt"))
    return f"{how_it_was(row['event'])} for {duration_words(closed - opened)}, from {begun} until {ended}."


def _words(row: Row, body: dict[str, Any], name: str) -> str:
    """Returns a time of the notice's incident as text, in the time zone of the trigger or budget that it is about, else
    in UTC. The text is empty if the incident has no such time.
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
    place = (field, row["environment_id"], row["channel_id"])
    key = keys.WrappedKey.of(row, f"{column}_")
    try:
        return keys.unseal(*place, bytes(row[column]), key).decode()
    except CannotOpen:
        raise CannotSend(f"the channel's {column} does not open") from None


_WORKS = """
UPDATE channel SET failing_since = NULL, last_error = NULL WHERE id = %(id)s AND failing_since IS NOT NULL
"""
_FAILS = """
UPDATE channel SET failing_since = coalesce(failing_since, statement_timestamp()), last_error = %(error)s
WHERE id = %(id)s
"""


def _follow(attempts: Sequence[Attempt]) -> None:
    """Records at the channels whether their notices get through, and emits an event if a notice was given up."""
    for attempt in attempts:
        row, answer = attempt.row, attempt.answer
        if row["event"] != CONFIRM and attempt.status == SendStatus.DELIVERED:
            execute(_WORKS, {"id": row["channel_id"]})
        if attempt.status != SendStatus.DEAD:
            continue
        error = answer.error or f"answered {answer.status_code}"
        if row["event"] != CONFIRM:
            execute(_FAILS, {"id": row["channel_id"], "error": error[:100]})
        metadata = {
            "channelId": str(row["channel_id"]),
            "event": row["event"],
            "attempts": attempt.count,
            "statusCode": answer.status_code,
            "error": answer.error,
        }
        emit(Event("notice.failed", SYSTEM, row["environment_id"], "notice", row["id"], metadata))


NOTICES = Kind(
    "notice",
    Notice,
    NoticeAttempt,
    message_of,
    _follow,
    tenants="environment",
    reads=READS,
    joins=JOINS,
    shares=16,
    per_host=4,
    recorders=2,
)
