"""The rules of a trigger that say which tool calls a person has to approve, who may decide, and who is told of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from pipedai.api.fields import ListField, TextField, TrueFalseField, WholeNumberField
from pipedai.api.serializers import InnerBody
from pipedai.sql import Row
from workspaces.roles import Role

# A rule as a trigger has it: the fields of ApprovalRuleBody.
Rule = dict[str, Any]

MAX_RULES: Final = 10

MAX_TOOLS: Final = 50

MAX_TOOL_NAME: Final = 200

MIN_EXPIRES_SECONDS, MAX_EXPIRES_SECONDS = 60, 7 * 86_400

# The word for all tools of the trigger's MCP server.
ALL_TOOLS: Final = "*"

# Whether a rule holds for each call of its tools, or only for those that may change something, as the worker judges.
WHEN: Final = ("always", "possible_effect")

# The most that the arguments of a call may take as compact JSON, in bytes. The gateways of workers refuse longer ones
# as well.
MAX_ARGUMENTS_BYTES: Final = 64 * 1024

DECISIONS: Final = ("approve", "reject")

APPROVER_ROLES: Final = (Role.OPERATOR.value, Role.ADMIN.value, Role.OWNER.value)


@extend_schema_field(
    {
        "oneOf": [
            {"type": "string", "enum": [ALL_TOOLS]},
            {
                "type": "array",
                "items": {"type": "string", "maxLength": MAX_TOOL_NAME},
                "minItems": 1,
                "maxItems": MAX_TOOLS,
            },
        ]
    }
)
class ToolsField(serializers.JSONField):
    """`*`, or a list of exact names of tools, as the MCP server has them."""

    def to_internal_value(self, data: Any) -> Any:
        if data == ALL_TOOLS:
            return data
        if not isinstance(data, list):
            raise serializers.ValidationError("Must be a list of names of tools, or *.")
        return list(dict.fromkeys(_NAMES.run_validation(data)))


_NAMES = ListField(
    child=TextField(max_length=MAX_TOOL_NAME, trim_whitespace=False),
    min_length=1,
    max_length=MAX_TOOLS,
)


class ApprovalRuleBody(InnerBody):
    """A rule of a trigger, in the body that has the trigger."""

    tools = ToolsField()
    when = serializers.ChoiceField(choices=WHEN, default="always")
    approverRole = serializers.ChoiceField(choices=APPROVER_ROLES, default=Role.ADMIN.value)
    notRequester = TrueFalseField(default=False)
    expiresAfterSeconds = WholeNumberField(
        min_value=MIN_EXPIRES_SECONDS, max_value=MAX_EXPIRES_SECONDS, default=86_400
    )


@extend_schema_field(ApprovalRuleBody(many=True))
class ApprovalRulesField(serializers.ListField):
    """The rules of a trigger; none become None. A change replaces all rules."""

    child = ApprovalRuleBody()
    default_error_messages = {"not_a_list": "Must be a list of rules."}

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, list) and len(data) > MAX_RULES:
            raise serializers.ValidationError(f"Must not have more than {MAX_RULES} rules.")
        return super().to_internal_value(data) or None


@dataclass(frozen=True, slots=True)
class Demand:
    """Who may decide about a call, and within how many seconds."""

    role: str
    not_requester: bool
    expires_after: int


# The rule for a call that no present rule names: the worker asked by a rule that the trigger had before. It is the
# strictest one, so that removing a rule never makes a decision easier.
_STRICTEST: Final[Rule] = {
    "when": "always",
    "approverRole": Role.OWNER.value,
    "notRequester": True,
    "expiresAfterSeconds": 86_400,
}


def rules_in_force(kept: Sequence[Rule] | None, present: Sequence[Rule] | None) -> list[Rule]:
    """Returns the rules for a run: those `kept` from when the run last asked, if it has asked, and those that its
    trigger has now. So no change of the trigger can ease the rules of a run that has asked.
    """
    rules = list(kept or ())
    return rules + [rule for rule in present or () if rule not in rules]


def rules_to_keep(tool: str, rules: Sequence[Rule]) -> list[Rule]:
    """Returns the rules to keep with a run's question about the tool. At least one of them names the tool."""
    return [*rules] if rules_about(tool, rules) else [*rules, {"tools": [tool], **_STRICTEST}]


def demand_for(tool: str, rules: Sequence[Rule]) -> Demand:
    """Returns the strictest demands of all rules about the tool, of which there must be one. It takes all of them,
    because only the worker knows which rule applied to the call.
    """
    about = rules_about(tool, rules)
    return Demand(
        max((rule["approverRole"] for rule in about), key=lambda role: Role(role).rank),
        any(rule["notRequester"] for rule in about),
        min(rule["expiresAfterSeconds"] for rule in about),
    )


def rules_about(tool: str, rules: Sequence[Rule]) -> list[Rule]:
    return [rule for rule in rules if rule["tools"] == ALL_TOOLS or tool in rule["tools"]]


_RANK: Final = f"array_position(ARRAY{list(APPROVER_ROLES)}, {{}}::text)"

# Whether the user `u` may decide about the approval `a`.
_MAY_DECIDE: Final = f"""u.is_active AND NOT u.id = ANY(a.barred) AND EXISTS (
    SELECT FROM membership m WHERE m.user_id = u.id AND m.environment_id = a.environment_id
        AND {_RANK.format("m.role")} >= {_RANK.format("a.role")})"""

# Whether a notice went to somebody who may decide. A channel's URL, and an address that belongs to no user, count as
# such, because the reader may be somebody who may decide.
_IS_TOLD: Final = f"""EXISTS (
    SELECT FROM notice n
    WHERE n.approval_id = a.id AND n.environment_id = a.environment_id AND n.status <> 'dead' AND NOT EXISTS (
        SELECT FROM user_account u WHERE u.email = n.address AND NOT ({_MAY_DECIDE}))) AS decider_is_told"""  # noqa: S608

# The columns about one approval `a` that `untold` reads.
DECIDERS: Final = f"""
EXISTS (
    SELECT FROM membership o JOIN user_account u ON u.id = o.user_id
    WHERE o.environment_id = a.environment_id AND {_MAY_DECIDE}) AS has_decider,
{_IS_TOLD}"""

# The active members of an environment that have each role or a higher one. A statement about many approvals reads the
# members by this once, instead of once for each approval.
MEMBERS_OF_ROLES: Final = f"""
SELECT needed.role, array_agg(m.user_id) AS ids
FROM unnest(ARRAY{list(APPROVER_ROLES)}) needed (role)
JOIN membership m ON m.environment_id = %(environment_id)s AND {_RANK.format("m.role")} >= {_RANK.format("needed.role")}
JOIN user_account u ON u.id = m.user_id AND u.is_active
GROUP BY needed.role"""  # noqa: S608

# The same columns as DECIDERS, where `able` is the approval's row of MEMBERS_OF_ROLES, or NULL if it has none.
DECIDERS_OF_MANY: Final = f"""
coalesce(NOT able.ids <@ a.barred, false) AS has_decider,
{_IS_TOLD}"""

NOBODY_MAY_DECIDE: Final = "nobody_may_decide"

NOBODY_TOLD: Final = "nobody_told"


def untold(row: Row) -> tuple[str, str, str] | None:
    """Returns why nobody will decide unless somebody acts, from a row with the columns of DECIDERS: a code, and what is
    wrong and what to do as sentences. Returns None if somebody who may decide was told.
    """
    if not row["has_decider"]:
        return (
            NOBODY_MAY_DECIDE,
            "No member may decide: nobody else has the role, or notRequester bars them.",
            "Give the role to somebody else, or invite them.",
        )
    if not row["decider_is_told"]:
        return (
            NOBODY_TOLD,
            "No channel has told anybody who may decide.",
            "Give the confirmed address of somebody who may decide to a channel that tells of such calls.",
        )
    return None
