"""The words for what channels tell of, and the sentences in which mails and Slack tell it (SPEC §14)."""

from typing import Final

from notices.states import Kind

RECOVERED: Final = ".recovered"
RUN_ENDED: Final = "run.ended"
TEST: Final = "channel.test"
DIGEST: Final = "channel.digest"
CONFIRM: Final = "address.confirm"

# What a channel that says nothing else tells of: incidents and their ends.
INCIDENT_EVENTS: Final = tuple(
    word for kind in Kind.values for word in (kind, f"{kind}{RECOVERED}")
)
# What a channel can be asked to tell of. Only webhooks tell of ended runs.
EVENTS: Final = (*INCIDENT_EVENTS, RUN_ENDED)

# The sentences for the beginning and the end of an incident of each kind, with a place for the name of its subject.
_SENTENCES: Final = {
    Kind.TRIGGER_FAILING: ("Trigger {} is failing", "Trigger {} succeeds again"),
    Kind.TRIGGER_LATE: ("Trigger {} is late", "Trigger {} is on time again"),
    Kind.WORKER_OFFLINE: ("Worker {} is offline", "Worker {} is online again"),
    Kind.POOL_OFFLINE: ("Pool {} has no worker online", "Pool {} has a worker online again"),
    Kind.WEBHOOK_DEAD: (
        "The webhook of trigger {} was given up",
        "The webhook of trigger {} arrives again",
    ),
    Kind.BUDGET_REACHED: ("Budget {} has reached a limit", "Budget {} has room again"),
}


def headline(event: str, name: str, *, reminder: bool = False) -> str:
    """Returns one sentence without a full stop on what an event of an incident is, with the name of its subject as it
    is. A reminder says that the incident is still open.
    """
    kind, recovered = event.removesuffix(RECOVERED), event.endswith(RECOVERED)
    sentence = _SENTENCES[Kind(kind)][recovered].format(name)
    return f"Still open: {sentence}" if reminder else sentence
