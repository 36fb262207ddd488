"""Says in words why runs wait and ended, and why due times made no run: for each code the message, what to do about it,
and where.

A remedy names the call of the API behind the words for it: `Resume it with PATCH /workers/:id (disabled: false)`. The
console and the command line show it without such calls, because they have pages and commands instead. This module
imports nothing but fixed words, so that the console may read it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, NamedTuple

from triggers.states import Decision, EndedBy, FaultClass


class WaitingFor(StrEnum):
    """What a queued or waiting run waits for. If it waits for several things, they come in this order: first those that
    somebody has to act on, last those that time alone will bring.
    """

    # The run's start deadline has passed. The scheduler ends the run in a moment.
    START_DEADLINE = "start_deadline"
    # The run could only have continued a session, and the time for that is over. The scheduler ends it in a moment.
    HAD_EFFECTS = "had_effects"
    # Somebody decided about the run's call, and its worker did not come back in time. The scheduler ends it in a
    # moment.
    APPROVAL_UNREACHABLE = "approval_unreachable"
    # A person has to decide about a tool call. A waiting run has only this reason, and no other run has it.
    AWAITING_APPROVAL = "awaiting_approval"
    # The run's trigger has neither a worker nor a pool.
    NO_WORKER = "no_worker"
    # The run's pool has no workers.
    POOL_EMPTY = "pool_empty"
    ENVIRONMENT_PAUSED = "environment_paused"
    # The worker has no token, because it was revoked or the worker was deregistered.
    WORKER_REVOKED = "worker_revoked"
    WORKER_DISABLED = "worker_disabled"
    # The worker has not called for a while. The poll and the claim do not check this: the run goes out once the worker
    # polls.
    WORKER_OFFLINE = "worker_offline"
    # No worker of the run's pool has called for a while. Workers with another hindrance don't count.
    POOL_OFFLINE = "pool_offline"
    # The connection of the run's trigger has no token, or one that is about to expire.
    CONNECTION_NOT_READY = "connection_not_ready"
    # The secret headers of the run's trigger can't be decrypted.
    HEADERS_UNREADABLE = "headers_unreadable"
    # The trigger has secret headers, and no admin has approved the worker for them.
    WORKER_UNAPPROVED = "worker_unapproved"
    # The run needs a feature that the worker's last poll did not name: it may have to wait for an approval, or it looks
    # for something new before the agent starts.
    WORKER_LACKS_FEATURES = "worker_lacks_features"
    # The usage limit of the worker's account was reached.
    WORKER_LIMITED = "worker_limited"
    # The run's waiting time, such as that of a retry, is not over.
    NOT_DUE = "not_due"
    # As many runs of the trigger are held as its `maxConcurrentRuns` allows.
    TRIGGER_FULL = "trigger_full"
    # The worker holds as many runs as it may.
    WORKER_FULL = "worker_full"
    # A budget that covers the run has no room for it.
    BUDGET_EXHAUSTED = "budget_exhausted"
    # The workers of the run's pool hold as many runs as they may. Workers with another hindrance don't count.
    POOL_FULL = "pool_full"
    # Other due runs go first, and no worker has room for this one in its next poll.
    BEHIND_OTHERS = "behind_others"
    # A run of a pool is kept for one of its workers for a time, or for all workers but the one on which it failed.
    FIRST_WORKER = "first_worker"
    # The run continues a session, which only one worker can.
    RESUME_WORKER = "resume_worker"


@dataclass(frozen=True, slots=True)
class Hindrance:
    """The words for what keeps workers from a run: `own` is about the run's own worker, `one` and `several` about
    workers of its pool. They have the fields `name`, `at` (the time in question) and `most` (the worker's
    maxConcurrency). In the remedy, `it` and `name` stand for the worker. The words on how another worker gets the run
    are added to the remedy.
    """

    own: str
    one: str
    several: str
    remedy: str
    # The columns of the worker that say since when and until when the hindrance lasts; empty if there is none.
    since: str = ""
    until: str = ""
    # The code for workers of a pool, if it is another one.
    pool_code: WaitingFor | None = None


HINDRANCES: Final[Mapping[WaitingFor, Hindrance]] = {
    WaitingFor.WORKER_REVOKED: Hindrance(
        own="Machine {name} has no token: its token was revoked, and it has not registered again.",
        one="has no token.",
        several="have no token.",
        remedy="Register {name} again (POST /workers/register)",
    ),
    WaitingFor.WORKER_DISABLED: Hindrance(
        own="Machine {name} has been paused since {at}.",
        one="is paused.",
        several="are paused.",
        remedy="Resume {it} with PATCH /workers/:id (disabled: false)",
        since="disabled_at",
    ),
    WaitingFor.WORKER_LIMITED: Hindrance(
        own="Machine {name} gets no runs until {at}, because the usage limit of its account was reached.",
        one="gets no runs until {at}, because the usage limit of its account was reached.",
        several="get no runs until {at}, because the usage limit of their accounts was reached.",
        remedy="Wait until then, try at once with PATCH /workers/:id (limitedUntil: null)",
        until="limited_until",
    ),
    WaitingFor.WORKER_OFFLINE: Hindrance(
        own="Machine {name} has been offline since {at}.",
        one="has been offline since {at}.",
        several="are offline, the last one since {at}.",
        remedy="Start the worker program on {name}",
        since="called_until",
        pool_code=WaitingFor.POOL_OFFLINE,
    ),
    WaitingFor.WORKER_UNAPPROVED: Hindrance(
        own="Machine {name} is not approved for triggers with MCP headers: an API key registered it.",
        one="is not approved for triggers with MCP headers.",
        several="are not approved for triggers with MCP headers.",
        remedy="Approve {it} with POST /workers/:id/approve",
        since="unapproved_since",
    ),
    WaitingFor.WORKER_LACKS_FEATURES: Hindrance(
        own="Machine {name} can't wait for an approval or look for something new first, which the run may need.",
        one="can't wait for an approval or look for something new first, which it may need.",
        several="can't wait for an approval or look for something new first, which it may need.",
        remedy="Run the newest worker program, without --command, on {name}",
    ),
    WaitingFor.WORKER_FULL: Hindrance(
        own="Machine {name} holds as many runs as it may: {most}.",
        one="holds as many runs as it may.",
        several="hold as many runs as they may.",
        remedy="Wait until one of these runs ends, let {name} hold more with PATCH /workers/:id (maxConcurrency)",
        since="last_claimed_at",
        pool_code=WaitingFor.POOL_FULL,
    ),
}
# The sentences for WORKER_OFFLINE if none of the workers has ever called.
NEVER_CALLED: Final = replace(
    HINDRANCES[WaitingFor.WORKER_OFFLINE],
    own="Machine {name} has never called.",
    one="has never called.",
    several="have never called.",
)


class Why(NamedTuple):
    """Why a run ended without success, or a due time made no run, as the end of a sentence that begins with `because`;
    what to do about it; and on which page of the console that is done, if not on the run's page.
    """

    because: str
    remedy: str = ""
    page: str = ""


# The codes of the faults that a worker reports.
CLIENT_FAULT: Final = "client_fault"
INFRA_FAULT: Final = "infra_fault"
_RERUN: Final = "then run it again with POST /runs/:id/rerun."
# Why a run ended without success: by a rule of the server, or as its worker reported.
ENDS: Final[Mapping[str, Why]] = {
    EndedBy.LEASE.value: Why(
        "its machine fell silent",
        f"Find out on the machine, and in its worker's log, why it fell silent; {_RERUN}",
        "machines",
    ),
    EndedBy.DEADLINE.value: Why(
        "it took longer than its trigger allows",
        "Let the trigger's runs take longer with PATCH /triggers/:id (timeoutSeconds), or make the prompt ask for less;"
        f" {_RERUN}",
        "trigger",
    ),
    EndedBy.START_DEADLINE.value: Why(
        "no machine took it before its start deadline",
        "See with GET /triggers/:id/explain why no machine took it, start one, or let the trigger's runs stay queued"
        f" longer with PATCH /triggers/:id (startDeadlineSeconds); {_RERUN}",
        "machines",
    ),
    EndedBy.HAD_EFFECTS.value: Why(
        "it could only continue an earlier session, and its machine did not do so in time",
        f"See with GET /runs/:id/tool-calls what the run before it may have changed; {_RERUN}",
    ),
    EndedBy.APPROVAL_EXPIRED.value: Why(
        "nobody decided about its call in time",
        "Decide sooner, or give the trigger's approvals more time with PATCH /triggers/:id (expiresAfterSeconds);"
        f" {_RERUN}",
        "approvals",
    ),
    EndedBy.APPROVAL_UNREACHABLE.value: Why(
        "its machine did not come back after the decision about its call",
        f"Find out on the machine, and in its worker's log, why it did not come back; {_RERUN}",
        "machines",
    ),
    EndedBy.LATE_RESULT.value: Why("the run that it repeats ended after all, by a late result"),
    CLIENT_FAULT: Why(
        "the trigger is to blame: its prompt, model, MCP server, headers or a limit",
        "Read the run's error, correct the trigger's prompt, model, MCP server or headers with PATCH /triggers/:id;"
        f" {_RERUN}",
        "trigger",
    ),
    INFRA_FAULT: Why(
        "something that the run depends on failed, such as its machine or a network",
        f"Read the run's error, and the worker's log on the machine; {_RERUN}",
        "machines",
    ),
}


def end_code(ended_by: str | None, fault_class: str | None) -> str | None:
    """Returns the code in ENDS for a failed run; None if its columns give no reason, as when it was pruned."""
    if ended_by in ENDS:
        return ended_by
    return {FaultClass.CLIENT.value: CLIENT_FAULT, FaultClass.INFRA.value: INFRA_FAULT}.get(
        fault_class or ""
    )


# Stands for the decision about a due time about which no scheduler has decided yet.
PENDING: Final = "pending"
# Why a due time of a late trigger made no run, by the decision about it. The first and the last one give no reason.
DUE_TIMES: Final[Mapping[str, Why]] = {
    Decision.FIRED.value: Why(
        "", "See with GET /triggers/:id/explain what the run waits for, or how it ended."
    ),
    Decision.SKIPPED_OVERLAP.value: Why(
        "an earlier run of the trigger had not ended, and the trigger skips due times until then",
        "Cancel the earlier run with POST /runs/:id/cancel if it hangs, or let runs queue behind it with PATCH"
        " /triggers/:id (overlapPolicy: queue).",
    ),
    Decision.SKIPPED_MISSED.value: Why(
        "no scheduler was running, and when one ran again, it was too late for this due time",
        "Run it now with POST /triggers/:id/run.",
    ),
    Decision.SKIPPED_NO_WORKER.value: Why(
        "the trigger had neither a machine nor a pool",
        "Give the trigger a machine or a pool with PATCH /triggers/:id (workerId, poolId), and run it now with POST"
        " /triggers/:id/run.",
    ),
    Decision.SKIPPED_PAUSED.value: Why(
        "the environment was paused", "Run it now with POST /triggers/:id/run."
    ),
    PENDING: Why(
        "",
        "The operator of the service has to look at its schedulers (GET /health). Until then run the trigger with POST"
        " /triggers/:id/run.",
    ),
}

_CALL: Final = r"(?:GET|POST|PUT|PATCH|DELETE) /[\w/:-]+"
_CALLS: Final = re.compile(
    rf" (?:with|at) {_CALL}(?: \([^)]*\))?| \({_CALL}\)|, to which {_CALL} leads|, https?://\S+(?=\.(?:\s|$))"
)


def without_calls(remedy: str) -> str:
    """Returns a remedy without the calls of the API and the addresses of pages that it names."""
    return _CALLS.sub("", remedy)
