"""The table of approvals: what runs asked to do, and what people decided about it."""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from pipedai.table_rules import check, has, index, lacks, unique
from triggers.models.run import JSONAsGivenField
from triggers.states import ApprovalStatus
from workspaces.roles import Role
from workspaces.tenant_columns import TenantRow, in_environment, tenant_key

_DECIDED = (ApprovalStatus.APPROVED, ApprovalStatus.REJECTED)


class Approval(TenantRow):
    """A call of a tool about which a run asked a person, with the decision. `triggers.runs.waiting` and
    `triggers.approvals` write it, after they have changed or locked the run.
    """

    trigger = tenant_key("triggers.Trigger")
    # The run that asked. It waits while the status is `pending`.
    run = tenant_key("triggers.Run", related_name="approvals")
    status = models.CharField(
        max_length=9, choices=ApprovalStatus.choices, default=ApprovalStatus.PENDING
    )
    # The name of the tool, as its MCP server has it.
    tool = models.CharField(max_length=200)
    # The arguments of the call as its worker showed them, without secrets, as text and unchanged.
    arguments = JSONAsGivenField()
    # The SHA-256 of the arguments with their secrets in the form of RFC 8785, and that of the tool's schema, as 64
    # hexadecimal digits. By these the worker's gateway knows the call again.
    arguments_hash = models.CharField(max_length=64)
    tool_schema_hash = models.CharField(max_length=64)
    # How many calls the run had made before it asked; NULL if its worker counted none.
    calls_before = models.IntegerField(null=True)
    # The rules for the run when it asked, as ApprovalRulesField reads them: at least one names the tool. A worker gets
    # them with the decision, whatever the trigger becomes. NULL if a release asked that did not keep them.
    rules = JSONAsGivenField(null=True)
    # Whether the run had the CLI's own tools for shells, the web and files when it asked; NULL as for `rules`.
    allow_host_tools = models.BooleanField(null=True)
    # The lowest role that may decide: the strictest of the rules about this tool.
    role = models.CharField(max_length=8, choices=Role.choices)
    # Whether a rule about the tool says `notRequester`.
    not_requester = models.BooleanField(default=False, db_default=False)
    # The users who may not decide, because they did something themselves or by a key that they had made: they requested
    # the run, had changed the trigger when the run asked, or have changed it since. Empty without `not_requester`.
    barred = ArrayField(models.UUIDField(), default=list)
    # When the run asked, by the database's clock.
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    # Until when somebody can decide.
    expires_at = models.DateTimeField()
    # When a scheduler is to tell of the question once more; NULL once one has.
    remind_at = models.DateTimeField(null=True)
    # When the status ceased to be `pending`.
    closed_at = models.DateTimeField(null=True)
    # The user who decided; NULL if nobody did.
    decided_by = models.UUIDField(null=True)
    # What the user wrote about the decision; NULL for nothing. The agent reads the reason of a rejection.
    reason = models.CharField(max_length=1000, null=True)
    # When the worker's gateway was allowed to forward the call, once; NULL before.
    spent_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "approval"
        constraints = (
            in_environment("approval"),
            unique(
                "approval_one_pending",
                ["run", "environment"],
                where=Q(status=ApprovalStatus.PENDING),
            ),
            check(
                "approval_closed",
                lacks("closed_at", status=ApprovalStatus.PENDING)
                | (
                    has("closed_at", status__in=ApprovalStatus.values)
                    & ~Q(status=ApprovalStatus.PENDING)
                ),
            ),
            check(
                "approval_decided_by_somebody",
                has("decided_by", status__in=_DECIDED)
                | (lacks("decided_by", "reason") & ~Q(status__in=_DECIDED)),
            ),
            check(
                "approval_spent_was_approved", lacks("spent_at") | Q(status=ApprovalStatus.APPROVED)
            ),
            check("approval_role", Q(role__in=(Role.OPERATOR, Role.ADMIN, Role.OWNER))),
        )
        indexes = (
            index("approval_listed", ["environment", "created_at", "id"]),
            index("approval_of_status", ["environment", "status", "created_at", "id"]),
            index(
                "approval_remind",
                ["remind_at"],
                where=has("remind_at", status=ApprovalStatus.PENDING),
            ),
            # The hand-out finds a run's last approval by this index, and the database a removed run's approvals.
            index("approval_of_run", ["run", "created_at"]),
        )

    def __str__(self) -> str:
        return self.tool
