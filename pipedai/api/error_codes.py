"""The error codes, for programs. Sentences for people may change, but codes never do."""

from enum import StrEnum
from types import MappingProxyType


class ErrorCode(StrEnum):
    """A comment above a code gives its HTTP status and when it is sent. Two cases that a client would treat differently
    have two codes.
    """

    # 400: fields of the body, the query or the header are wrong. `details` says which.
    VALIDATION_FAILED = "validation_failed"
    # 400: the body can't be read as JSON, or holds JSON that can't be stored.
    MALFORMED_BODY = "malformed_body"
    # 400: the request is malformed outside of its body, such as one without a Host. 501: the server does not know the
    # request's transfer coding.
    MALFORMED_REQUEST = "malformed_request"
    # 400: ALLOWED_HOSTS does not list the request's Host.
    HOST_NOT_ALLOWED = "host_not_allowed"
    # 400: nobody has approved the host's pairing yet, so the host asks again later (RFC 8628 §3.5).
    AUTHORIZATION_PENDING = "authorization_pending"
    # 400: nobody has approved the host's pairing yet, and the host asked too soon. It must wait 5 s longer between two
    # questions (RFC 8628 §3.5).
    SLOW_DOWN = "slow_down"

    # 401: no credentials arrived, or they are malformed.
    UNAUTHENTICATED = "unauthenticated"
    # 401: the token or session is unknown, used up or revoked. It will never work again.
    INVALID_TOKEN = "invalid_token"  # noqa: S105
    # 401: the token or session was valid, but has expired. The client logs in again, or replaces the key.
    TOKEN_EXPIRED = "token_expired"  # noqa: S105
    # 401: the credentials may be valid, but this endpoint accepts only another kind.
    CREDENTIALS_NOT_ACCEPTED = "credentials_not_accepted"
    # 401: the e-mail address or the password of a login is wrong.
    WRONG_CREDENTIALS = "wrong_credentials"

    # 403: the caller's role is too low.
    FORBIDDEN = "forbidden"
    # 403: a page of another site made the browser send the request.
    FOREIGN_ORIGIN = "foreign_origin"
    # 403: nobody may register here, or only people with an invitation.
    REGISTRATION_CLOSED = "registration_closed"
    # 403: the enrollment was denied or revoked, or the person who approved the host is no admin any more.
    ENROLLMENT_DENIED = "enrollment_denied"

    # 404: the URL or the thing does not exist, or the caller can't see it. The answer does not tell which.
    NOT_FOUND = "not_found"
    # 405: the path has no such method.
    METHOD_NOT_ALLOWED = "method_not_allowed"
    # 406: the client does not accept JSON.
    NOT_ACCEPTABLE = "not_acceptable"
    # 408: the headers or the body did not arrive in time.
    REQUEST_TIMEOUT = "request_timeout"

    # 409: an e-mail address is registered already.
    EMAIL_TAKEN = "email_taken"
    # 409: an e-mail address is registered already, but nobody has proved that it is theirs. A mail to it says how its
    # owner registers.
    ADDRESS_UNPROVED = "address_unproved"
    # 409: the caller has to prove their e-mail address first.
    EMAIL_UNVERIFIED = "email_unverified"
    # 409: the call needs a mail, and the service sends none.
    MAIL_OFF = "mail_off"
    # 409: the token of a mail is unknown, used, expired, or for another account or purpose.
    LINK_UNUSABLE = "link_unusable"
    # 409: the e-mail address has an open invitation to the environment already.
    ALREADY_INVITED = "already_invited"
    # 409: another environment of the workspace, or another pool of the environment, has the name.
    NAME_TAKEN = "name_taken"
    # 409: another live row of the kind has the key in the environment.
    KEY_TAKEN = "key_taken"
    # 409: what an apply touches has changed since its plan.
    PLAN_STALE = "plan_stale"
    # 409: the environment's prompts take more memory than a plan or an export may, or a plan or an apply more time.
    TOO_MUCH_FOR_FILES = "too_much_for_files"
    # 409: an apply would send a secret to an origin to which it does not go yet, or lose one whose row moves.
    NEW_ORIGIN = "new_origin"
    # 409: the user is a member of the environment already.
    ALREADY_MEMBER = "already_member"
    # 409: the environment would be left without an owner.
    LAST_OWNER = "last_owner"
    # 409: what is to be deleted still has rows that depend on it. The sentence counts them.
    HAS_CHILDREN = "has_children"
    # 409: the trigger would listen to itself, over the triggers to which it listens.
    CHAIN_CIRCLE = "chain_circle"
    # 409: the trigger that is to be deleted still has unfinished runs.
    UNFINISHED_RUNS = "unfinished_runs"
    # 409: the request would add a row beyond a ceiling, which is the largest number of rows of one kind
    # (workspaces/ceilings.py). The body's `ceiling` names it.
    CEILING_REACHED = "ceiling_reached"
    # 409: the trigger is disabled.
    TRIGGER_DISABLED = "trigger_disabled"
    # 409: the trigger has neither a worker nor a pool that could execute its run.
    TRIGGER_WITHOUT_WORKER = "trigger_without_worker"
    # 409: the environment is paused. Nothing is queued, handed out or claimed in it.
    ENVIRONMENT_PAUSED = "environment_paused"
    # 409: the Idempotency-Key was sent before for another request: with another body, or for a rerun of another run.
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused"
    # 409: the trigger has no webhookUrl to which anything could be sent.
    NO_WEBHOOK_URL = "no_webhook_url"
    # 409: the connection's grant needs no authorization.
    WRONG_GRANT = "wrong_grant"
    # 409: the connection's MCP server or authorization server can't be connected. The sentence says why.
    CANNOT_DISCOVER = "cannot_discover"
    # 409: the connection's MCP server names another issuer than the one that the client secret belongs to. It must be
    # entered again before it is sent there.
    ISSUER_CHANGED = "issuer_changed"
    # 409: the event is the end of a run, so it can't be decided anew.
    EVENT_OF_RUN = "event_of_run"
    # 409: the channel is disabled and sends nothing.
    CHANNEL_DISABLED = "channel_disabled"
    # 409: the run's state forbids the transition. The body's `status` is that state.
    RUN_STATE = "run_state"
    # 409: the run has been claimed with another claimId, or by another worker of its pool.
    CLAIMED_BY_ANOTHER = "claimed_by_another"
    # 409: another worker comes first for the run, or the run waits for the worker that can resume its session.
    FIRST_WORKER = "first_worker"
    # 409: as many runs of the trigger are held as its maxConcurrentRuns allows.
    TRIGGER_FULL = "trigger_full"
    # 409: the run's start deadline has passed. It is about to end as failed.
    START_DEADLINE = "start_deadline"
    # 409: the run is not due yet.
    NOT_DUE = "not_due"
    # 409: the worker holds as many runs as it may.
    WORKER_FULL = "worker_full"
    # 409: the worker is disabled and gets no new runs.
    WORKER_DISABLED = "worker_disabled"
    # 409: the usage limit of the worker's account was reached. The worker gets no new runs until its `limitedUntil`.
    WORKER_LIMITED = "worker_limited"
    # 409: the run's trigger has secret headers, and no admin has approved the worker for them yet.
    WORKER_UNAPPROVED = "worker_unapproved"
    # 409: the worker's call does not name a feature that the run needs: `approvals` or `before`.
    WORKER_LACKS_FEATURES = "worker_lacks_features"
    # 409: somebody has decided about the call already, or the run was canceled. The body's `status` says which.
    APPROVAL_DECIDED = "approval_decided"
    # 409: nobody decided in time. The run has failed, or is about to.
    APPROVAL_EXPIRED = "approval_expired"
    # 409: the call may not be forwarded, because nobody has approved it, or because it was forwarded before.
    APPROVAL_UNSPENDABLE = "approval_unspendable"
    # 409: a budget has no room for the run.
    BUDGET_EXHAUSTED = "budget_exhausted"
    # 409: the connection of the run's trigger has no token, or one that is about to expire. `Retry-After` says when to
    # ask again.
    CONNECTION_NOT_READY = "connection_not_ready"
    # 409: the trigger of a run that is being executed has another MCP server by now, or was deleted. So the run keeps
    # the headers that it has.
    TRIGGER_CHANGED = "trigger_changed"
    # 409: the worker reports a run as canceled, although nobody requested that.
    CANCEL_NOT_REQUESTED = "cancel_not_requested"
    # 409: the worker's report is too late. The server gave the run up, and its retry has been claimed. The report is
    # kept with the run.
    RETRY_CLAIMED = "retry_claimed"
    # 409: the trigger's `recordEvents` does not ask for events of the run, at least not yet.
    EVENTS_OFF = "events_off"
    # 409: the events are not in order, or an event before them is missing. The body's `nextSeq` is the number of the
    # event with which the worker goes on.
    EVENT_GAP = "event_gap"
    # 409: a host has redeemed the enrollment already.
    ENROLLMENT_REDEEMED = "enrollment_redeemed"
    # 410: the enrollment has expired.
    ENROLLMENT_EXPIRED = "enrollment_expired"

    # 413: the body is over 1 MiB.
    BODY_TOO_LARGE = "body_too_large"
    # 414: the request line is too long.
    TARGET_TOO_LONG = "target_too_long"
    # 415: the body is not JSON, or it is compressed.
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    # 429: this caller did too much in too short a time; `Retry-After` says when to ask again.
    THROTTLED = "throttled"
    # 431: the request's headers are too large or too many.
    HEADERS_TOO_LARGE = "headers_too_large"

    # 500: the server failed unexpectedly. The log has the error under the body's `requestId`.
    INTERNAL_ERROR = "internal_error"
    # 503: the database can't be reached, accepts no writes, or is full; `Retry-After` says when to ask again.
    DATABASE_UNAVAILABLE = "database_unavailable"
    # 503: a secret can't be encrypted or opened until an operator mends the environment's data key.
    ENCRYPTION_UNAVAILABLE = "encryption_unavailable"
    # 503: the service has too much to do at this moment; `Retry-After` says when to ask again.
    OVERLOADED = "overloaded"
    # 503: no scheduler has an answer yet of the servers that the connection names. The same call, a moment later, gets
    # it.
    STILL_ASKING = "still_asking"
    # 502, 503, 504: the proxy in front of the service got no answer from the service, and answers in its place. The
    # call may have been carried out or not.
    SERVICE_UNAVAILABLE = "service_unavailable"


# The codes, by HTTP status, of errors that DRF, Django or gunicorn raise, which have no code of ours.
_BY_STATUS = MappingProxyType(
    {
        401: ErrorCode.UNAUTHENTICATED,
        403: ErrorCode.FORBIDDEN,
        404: ErrorCode.NOT_FOUND,
        405: ErrorCode.METHOD_NOT_ALLOWED,
        406: ErrorCode.NOT_ACCEPTABLE,
        408: ErrorCode.REQUEST_TIMEOUT,
        413: ErrorCode.BODY_TOO_LARGE,
        414: ErrorCode.TARGET_TOO_LONG,
        415: ErrorCode.UNSUPPORTED_MEDIA_TYPE,
        429: ErrorCode.THROTTLED,
        431: ErrorCode.HEADERS_TOO_LARGE,
        500: ErrorCode.INTERNAL_ERROR,
        501: ErrorCode.MALFORMED_REQUEST,
        503: ErrorCode.OVERLOADED,
    }
)


def code_of_status(status: int) -> ErrorCode:
    otherwise = ErrorCode.MALFORMED_REQUEST if status < 500 else ErrorCode.INTERNAL_ERROR
    return _BY_STATUS.get(status, otherwise)
