"""The error codes, for programs. Sentences for people may change, but codes never do."""

from enum import StrEnum
from types import MappingProxyType


class ErrorCode(StrEnum):
    """The codes in the order of API.md, which says when each is sent, and with which status; a test compares the two.
    Two cases that a client would treat differently have two codes.
    """

    VALIDATION_FAILED = "validation_failed"
    MALFORMED_BODY = "malformed_body"
    MALFORMED_REQUEST = "malformed_request"
    HOST_NOT_ALLOWED = "host_not_allowed"
    AUTHORIZATION_PENDING = "authorization_pending"
    SLOW_DOWN = "slow_down"
    UNAUTHENTICATED = "unauthenticated"
    INVALID_TOKEN = "invalid_token"  # noqa: S105
    TOKEN_EXPIRED = "token_expired"  # noqa: S105
    CREDENTIALS_NOT_ACCEPTED = "credentials_not_accepted"
    WRONG_CREDENTIALS = "wrong_credentials"
    FORBIDDEN = "forbidden"
    FOREIGN_ORIGIN = "foreign_origin"
    REGISTRATION_CLOSED = "registration_closed"
    SSO_ONLY = "sso_only"
    SIGN_IN_AGAIN = "sign_in_again"
    ENROLLMENT_DENIED = "enrollment_denied"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    NOT_ACCEPTABLE = "not_acceptable"
    REQUEST_TIMEOUT = "request_timeout"
    EMAIL_TAKEN = "email_taken"
    ADDRESS_UNPROVED = "address_unproved"
    EMAIL_UNVERIFIED = "email_unverified"
    MAIL_OFF = "mail_off"
    LINK_UNUSABLE = "link_unusable"
    SSO_FAILED = "sso_failed"
    LINK_NEEDED = "link_needed"
    ALREADY_INVITED = "already_invited"
    NAME_TAKEN = "name_taken"
    KEY_TAKEN = "key_taken"
    PLAN_STALE = "plan_stale"
    TOO_MUCH_FOR_FILES = "too_much_for_files"
    NEW_ORIGIN = "new_origin"
    ALREADY_MEMBER = "already_member"
    LAST_OWNER = "last_owner"
    HAS_CHILDREN = "has_children"
    CHAIN_CIRCLE = "chain_circle"
    UNFINISHED_RUNS = "unfinished_runs"
    CEILING_REACHED = "ceiling_reached"
    TRIGGER_DISABLED = "trigger_disabled"
    TRIGGER_WITHOUT_WORKER = "trigger_without_worker"
    ENVIRONMENT_PAUSED = "environment_paused"
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused"
    NO_WEBHOOK_URL = "no_webhook_url"
    WRONG_GRANT = "wrong_grant"
    CANNOT_DISCOVER = "cannot_discover"
    ISSUER_CHANGED = "issuer_changed"
    EVENT_OF_RUN = "event_of_run"
    CHANNEL_DISABLED = "channel_disabled"
    RUN_STATE = "run_state"
    CLAIMED_BY_ANOTHER = "claimed_by_another"
    FIRST_WORKER = "first_worker"
    TRIGGER_FULL = "trigger_full"
    START_DEADLINE = "start_deadline"
    NOT_DUE = "not_due"
    WORKER_FULL = "worker_full"
    WORKER_DISABLED = "worker_disabled"
    WORKER_LIMITED = "worker_limited"
    WORKER_UNAPPROVED = "worker_unapproved"
    WORKER_LACKS_FEATURES = "worker_lacks_features"
    APPROVAL_DECIDED = "approval_decided"
    APPROVAL_EXPIRED = "approval_expired"
    APPROVAL_UNSPENDABLE = "approval_unspendable"
    BUDGET_EXHAUSTED = "budget_exhausted"
    CONNECTION_NOT_READY = "connection_not_ready"
    TRIGGER_CHANGED = "trigger_changed"
    CANCEL_NOT_REQUESTED = "cancel_not_requested"
    RETRY_CLAIMED = "retry_claimed"
    EVENTS_OFF = "events_off"
    EVENT_GAP = "event_gap"
    ENROLLMENT_REDEEMED = "enrollment_redeemed"
    ENROLLMENT_EXPIRED = "enrollment_expired"
    BODY_TOO_LARGE = "body_too_large"
    TARGET_TOO_LONG = "target_too_long"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    THROTTLED = "throttled"
    HEADERS_TOO_LARGE = "headers_too_large"
    INTERNAL_ERROR = "internal_error"
    DATABASE_UNAVAILABLE = "database_unavailable"
    ENCRYPTION_UNAVAILABLE = "encryption_unavailable"
    ISSUER_UNAVAILABLE = "issuer_unavailable"
    OVERLOADED = "overloaded"
    STILL_ASKING = "still_asking"
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
