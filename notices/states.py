"""The fixed words of incidents and of channels' events, and the sentences that tell people of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from django.db.models import TextChoices


class Kind(TextChoices):
    """What is wrong."""

    # The last `alertAfterFailures` final outcomes of a trigger all failed or timed out. The transaction of the run's
    # end opens and closes it.
    TRIGGER_FAILING = "trigger_failing"
    # No run of a trigger succeeded within `successDeadlineSeconds` after a due time. The scheduler opens and closes it.
    TRIGGER_LATE = "trigger_late"
    # A worker that enabled triggers point at has been silent for ten minutes, or signed off a minute ago. The scheduler
    # opens and closes it.
    WORKER_OFFLINE = "worker_offline"
    # A pool that enabled triggers point at has no machines, or each of them has been silent for ten minutes, or signed
    # off a minute ago. The scheduler opens and closes it.
    POOL_OFFLINE = "pool_offline"
    # A completion webhook of a trigger was given up. The transaction that records the attempt opens and closes it.
    WEBHOOK_DEAD = "webhook_dead"
    # A budget has reached one of its percentages. The scheduler opens and closes it.
    BUDGET_REACHED = "budget_reached"
    # A connection's server refuses it new tokens. The transaction of the refresh opens it, and that of the next
    # authorization closes it.
    CONNECTION_NEEDS_LOGIN = "connection_needs_login"


class SubjectType(TextChoices):
    TRIGGER = "trigger"
    WORKER = "worker"
    POOL = "pool"
    BUDGET = "budget"
    CONNECTION = "connection"


RECOVERED: Final = ".recovered"
RUN_ENDED: Final = "run.ended"
RUN_RESULT: Final = "run.result"
# Which final outcomes a channel tells with `run.result`, if it has no clauses.
ALWAYS: Final = "always"
FAILED: Final = "failed"
# A run waits until a person decides about its call of a tool. The subject is the trigger.
APPROVAL_REQUESTED: Final = "approval_requested"
TEST: Final = "channel.test"
DIGEST: Final = "channel.digest"
SUMMARY: Final = "channel.summary"
CONFIRM: Final = "address.confirm"


def kind_of(event: str) -> Kind:
    """Returns the kind of incident whose beginning or end an event tells."""
    return Kind(event.removesuffix(RECOVERED))


# What needs somebody's attention besides incidents: an approval to decide, a connection that gets no fresh token, a
# channel whose last notice was given up, a failure that raised no incident, a connection whose user has left, and a
# machine with which something is wrong.
APPROVAL: Final = "approval"
CONNECTION_FAILING: Final = "connection_failing"
CHANNEL_DEAD: Final = "channel_dead"
RUN_FAILED: Final = "run_failed"
USER_LEFT: Final = "connection_user_left"
WORKER_PROBLEM: Final = "worker_problem"


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What is said of one kind of attention item. The module imports nothing of the service, so the console may use
    it.
    """

    # The word, the icon and the tone with which the console shows the kind.
    badge: tuple[str, str, str]
    # What the attention item says, with a place for the subject's name. It is empty if the sentence depends on the row.
    sentence: str = ""
    # What to do about the item. It is empty if that depends on the reason.
    remedy: str = ""
    # Whether the console lists the kind last, because nothing failed to happen, but somebody may miss a message.
    is_quiet: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentNeed(Need):
    """What is said of one kind of incident. `sentences` tell its beginning and its end, with a place for the subject's
    name, and then how it was. `choices` are the labels of the beginning and the end in the form of a channel.
    """

    # What incidents of the kind are about.
    subject: SubjectType
    sentences: tuple[str, str, str]
    choices: tuple[str, str]


# All kinds of what needs somebody, the most urgent first: what stops several triggers, what did not happen, what people
# would not hear of, what may break later.
NEEDS: Final[Mapping[str, Need]] = {
    APPROVAL: Need(
        badge=("Waiting for approval", "pause", "warn"), remedy="Decide on its page in the console."
    ),
    Kind.POOL_OFFLINE.value: IncidentNeed(
        subject=SubjectType.POOL,
        badge=("No machine", "cross", "bad"),
        sentences=(
            "Pool {} has no machine online",
            "Pool {} has a machine online again",
            "It had none",
        ),
        choices=("A pool has no machine", "It has one again"),
    ),
    Kind.WORKER_OFFLINE.value: IncidentNeed(
        subject=SubjectType.WORKER,
        badge=("Offline", "cross", "bad"),
        sentences=("Machine {} is offline", "Machine {} is online again", "It was offline"),
        choices=("A machine is offline", "It is back"),
    ),
    WORKER_PROBLEM: Need(
        badge=("Has a problem", "cross", "bad"),
        sentence="Something is wrong with machine {}.",
        remedy="Do what it says on that machine. `pipedai-worker doctor` there checks everything.",
    ),
    Kind.CONNECTION_NEEDS_LOGIN.value: IncidentNeed(
        subject=SubjectType.CONNECTION,
        badge=("Needs a new login", "cross", "bad"),
        sentences=(
            "Connection {} needs a new login",
            "Connection {} works again",
            "It had no token",
        ),
        choices=("A connection needs a new login", "It works again"),
        remedy="Connect it again on its page, to which POST /connections/:id/authorize leads. One that gets its tokens"
        " without a login needs another secret instead, with PATCH /connections/:id (clientSecret).",
    ),
    CONNECTION_FAILING: Need(
        badge=("Gets no token", "cross", "bad"),
        sentence="Connection {} gets no fresh token, so its runs wait.",
        remedy="See what the error says of its servers. Schedulers keep trying, and the runs go out when they have a"
        " token.",
    ),
    Kind.BUDGET_REACHED.value: IncidentNeed(
        subject=SubjectType.BUDGET,
        badge=("Budget reached", "pause", "warn"),
        sentences=(
            "Budget {} has reached a limit",
            "Budget {} has room again",
            "It had reached a limit",
        ),
        choices=("A budget is reached", "It has room again"),
        remedy="Raise its limit with PATCH /budgets/:id (limitUsd, limitRuns), or wait until it resets.",
        is_quiet=True,
    ),
    Kind.TRIGGER_LATE.value: IncidentNeed(
        subject=SubjectType.TRIGGER,
        badge=("Late", "clock", "bad"),
        sentences=("Trigger {} is late", "Trigger {} is on time again", "It was late"),
        choices=("A trigger is late", "It is on time again"),
    ),
    Kind.TRIGGER_FAILING.value: IncidentNeed(
        subject=SubjectType.TRIGGER,
        badge=("Failing", "cross", "bad"),
        sentences=("Trigger {} is failing", "Trigger {} succeeds again", "It was failing"),
        choices=("A trigger fails", "It succeeds again"),
    ),
    Kind.WEBHOOK_DEAD.value: IncidentNeed(
        subject=SubjectType.TRIGGER,
        badge=("Webhook given up", "cross", "warn"),
        sentences=(
            "The webhook of trigger {} was given up",
            "The webhook of trigger {} arrives again",
            "It did not arrive",
        ),
        choices=("A trigger’s webhook was given up", "It arrives again"),
        remedy="See with GET /triggers/:id/deliveries what the receiver answered, correct its URL with PATCH"
        " /triggers/:id (webhookUrl), and send it again with POST /deliveries/:id/redeliver.",
        is_quiet=True,
    ),
    CHANNEL_DEAD: Need(
        badge=("Notices given up", "cross", "bad"),
        sentence="Channel {} reaches nobody: its last notice was given up.",
        remedy="See with GET /channels/:id/notices what became of its notices, correct it with PATCH /channels/:id, and"
        " try it with POST /channels/:id/test.",
        is_quiet=True,
    ),
    RUN_FAILED: Need(
        badge=("Failed", "cross", "bad"), sentence="The last run of trigger {} failed or timed out."
    ),
    USER_LEFT: Need(
        badge=("Its user has left", "clock", "warn"),
        sentence="Connection {} uses the login of somebody who is not an active member any more.",
        remedy="Let a member connect it again on its page, to which POST /connections/:id/authorize leads.",
        is_quiet=True,
    ),
}
INCIDENTS: Final = {
    kind: need for kind in Kind if isinstance(need := NEEDS[kind.value], IncidentNeed)
}

# The events that a channel can tell of, with their labels in its form: the beginnings and the ends of incidents,
# approvals to decide, and how runs ended. Only webhooks have `run.ended`.
CHOICES: Final[Mapping[str, str]] = {
    **{
        event: said
        for kind, need in INCIDENTS.items()
        for event, said in zip((kind.value, f"{kind.value}{RECOVERED}"), need.choices, strict=True)
    },
    APPROVAL_REQUESTED: "A run asks for a decision",
    RUN_ENDED: "Every run that has ended",
    RUN_RESULT: "How a run has ended, with its output",
}
EVENTS: Final = tuple(CHOICES)
# The events that a channel tells of if its body names none.
USUAL_EVENTS: Final = tuple(event for event in EVENTS if event not in (RUN_ENDED, RUN_RESULT))


def headline(event: str, name: str, *, reminder: bool = False) -> str:
    """Returns a sentence without a full stop. That of a reminder says that the incident still goes on."""
    if event == APPROVAL_REQUESTED:
        return f"Trigger {name} {'still ' if reminder else ''}asks for a decision"
    sentence = INCIDENTS[kind_of(event)].sentences[event.endswith(RECOVERED)].format(name)
    return f"Still open: {sentence}" if reminder else sentence


def how_it_was(event: str) -> str:
    """Returns the beginning of a sentence that follows the headline of a recovery: `It was failing`."""
    return INCIDENTS[kind_of(event)].sentences[2]
