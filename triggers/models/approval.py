"""The table of approvals: what runs asked to do, and what people decided about it (SPEC §27)."""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from pipedai.ids import new_id
from triggers.models.fields import JSONAsGivenField, tenant_key
from triggers.states import ApprovalStatus
from workspaces.models import Environment
from workspaces.roles import Role

_DECIDED = (ApprovalStatus.APPROVED, ApprovalStatus.REJECTED)


class Approval(models.Model):
    """A call of a tool about which a run asked a person, with the decision. `triggers.runs.waiting` and
    `triggers.approvals` write it, after they have changed or locked the run.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    environment = models.ForeignKey(
        Environment, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    trigger = tenant_key("triggers.Trigger", related_name="+")
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
    # The lowest role that may decide: the strictest of the trigger's rules about this tool when the run asked.
    role = models.CharField(max_length=8, choices=Role.choices)
    # The users who may not decide, because they requested the run or last changed the trigger, themselves or by a key
    # that they had made. It is empty unless a rule about the tool says `notRequester`.
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
            models.UniqueConstraint(fields=["environment", "id"], name="approval_in_environment"),
            models.UniqueConstraint(
                fields=["run", "environment"],
                condition=Q(status=ApprovalStatus.PENDING),
                name="approval_one_pending",
            ),
            models.CheckConstraint(
                condition=Q(status=ApprovalStatus.PENDING, closed_at__isnull=True)
                | (
                    Q(status__in=ApprovalStatus.values, closed_at__isnull=False)
                    & ~Q(status=ApprovalStatus.PENDING)
                ),
                name="approval_closed",
            ),
            models.CheckConstraint(
                condition=Q(status__in=_DECIDED, decided_by__isnull=False)
                | (Q(decided_by__isnull=True, reason__isnull=True) & ~Q(status__in=_DECIDED)),
                name="approval_decided_by_somebody",
            ),
            models.CheckConstraint(
                condition=Q(spent_at__isnull=True) | Q(status=ApprovalStatus.APPROVED),
                name="approval_spent_was_approved",
            ),
            models.CheckConstraint(
                condition=Q(role__in=(Role.OPERATOR, Role.ADMIN, Role.OWNER)), name="approval_role"
            ),
        )
        indexes = (
            models.Index(fields=["environment", "created_at", "id"], name="approval_listed"),
            models.Index(
                fields=["environment", "status", "created_at", "id"], name="approval_of_status"
            ),
            models.Index(
                fields=["remind_at"],
                name="approval_remind",
                condition=Q(status=ApprovalStatus.PENDING, remind_at__isnull=False),
            ),
            # The hand-out finds a run's last approval by this index, and the database a removed run's approvals.
            models.Index(fields=["run", "created_at"], name="approval_of_run"),
        )

    def __str__(self) -> str:
        return self.tool
