"""Adds the limit of a trigger's cost, and the tables of budgets (SPEC §17). 0037 validates the constraint of the table
`trigger`.

The foreign keys contain the environment; see 0002. If a run is pruned, the database removes its reservations.
"""

import django.contrib.postgres.fields
import django.db.models.deletion
import django.db.models.functions.datetime
from django.contrib.postgres.operations import AddConstraintNotValid
from django.db import migrations, models

import pipedai.ids

# (table, column, the table that it names, what happens when the named row is removed)
_KEYS = (
    ("budget", "trigger", "trigger", ""),
    ("budget_window", "budget", "budget", ""),
    ("run_reservation", "run", "run", " ON DELETE CASCADE"),
    ("run_reservation", "window", "budget_window", ""),
)


def _key(table: str, column: str, named: str, removed: str) -> migrations.RunSQL:
    name = f"{table}_{column}_in_environment"
    return migrations.RunSQL(
        f"ALTER TABLE {table} ADD CONSTRAINT {name} FOREIGN KEY (environment_id, {column}_id)"
        f" REFERENCES {named} (environment_id, id){removed}",
        f"ALTER TABLE {table} DROP CONSTRAINT {name}",
    )


class Migration(migrations.Migration):
    dependencies = [
        ("triggers", "0035_runs_of_pool"),
        ("workers", "0006_one_silence_in_environment"),
        ("workspaces", "0010_invitations"),
    ]

    operations = [
        migrations.CreateModel(
            name="Budget",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=pipedai.ids.new_id,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("name", models.CharField(max_length=200)),
                (
                    "period",
                    models.CharField(choices=[("day", "Day"), ("month", "Month")], max_length=5),
                ),
                ("timezone", models.CharField(default="UTC", max_length=64)),
                ("limit_usd", models.DecimalField(decimal_places=6, max_digits=20, null=True)),
                ("limit_runs", models.PositiveIntegerField(null=True)),
                (
                    "when_reached",
                    models.CharField(
                        choices=[("hold", "Hold"), ("reject", "Reject"), ("notify", "Notify")],
                        default="hold",
                        max_length=6,
                    ),
                ),
                (
                    "notice_at_pct",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.PositiveSmallIntegerField(), default=list, size=None
                    ),
                ),
                ("reserve_usd", models.DecimalField(decimal_places=6, default=1, max_digits=20)),
                ("count_notional", models.BooleanField(default=True)),
                ("generation", models.PositiveIntegerField(default=0)),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
                (
                    "updated_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
                ("deleted_at", models.DateTimeField(null=True)),
                (
                    "environment",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="workspaces.environment",
                    ),
                ),
                (
                    "trigger",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="triggers.trigger",
                    ),
                ),
            ],
            options={
                "db_table": "budget",
                "indexes": [
                    models.Index(
                        condition=models.Q(("deleted_at__isnull", True)),
                        fields=["environment", "created_at", "id"],
                        name="budget_listed",
                    ),
                ],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("environment", "id"), name="budget_in_environment"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("period__in", ("day", "month"))), name="budget_period"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("when_reached__in", ("hold", "reject", "notify"))),
                        name="budget_when_reached",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("limit_usd__isnull", True), ("limit_usd__gte", 0), _connector="OR"
                        ),
                        name="budget_limit_usd",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("reserve_usd__gte", 0)), name="budget_reserve_usd"
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="BudgetWindow",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=pipedai.ids.new_id,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("generation", models.PositiveIntegerField()),
                ("starts_at", models.DateTimeField()),
                ("ends_at", models.DateTimeField()),
                ("spent_usd", models.DecimalField(decimal_places=6, default=0, max_digits=20)),
                ("reserved_usd", models.DecimalField(decimal_places=6, default=0, max_digits=20)),
                (
                    "notional_spent_usd",
                    models.DecimalField(decimal_places=6, default=0, max_digits=20),
                ),
                (
                    "notional_reserved_usd",
                    models.DecimalField(decimal_places=6, default=0, max_digits=20),
                ),
                ("runs", models.PositiveIntegerField(default=0)),
                ("changes", models.BigIntegerField(default=0)),
                ("is_changed", models.BooleanField(default=True)),
                ("noticed_pct", models.PositiveSmallIntegerField(default=0)),
                (
                    "budget",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="windows",
                        to="triggers.budget",
                    ),
                ),
                (
                    "environment",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="workspaces.environment",
                    ),
                ),
            ],
            options={
                "db_table": "budget_window",
                "indexes": [
                    models.Index(
                        condition=models.Q(("is_changed", True)),
                        fields=["id"],
                        name="budget_window_changed",
                    ),
                    models.Index(
                        condition=models.Q(("noticed_pct__gt", 0)),
                        fields=["ends_at"],
                        name="budget_window_noticed",
                    ),
                ],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("environment", "id"), name="budget_window_in_environment"
                    ),
                    models.UniqueConstraint(
                        fields=("budget", "generation", "starts_at", "environment"),
                        name="budget_window_once",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("ends_at__gt", models.F("starts_at"))),
                        name="budget_window_has_a_length",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("notional_reserved_usd__gte", 0),
                            ("notional_spent_usd__gte", 0),
                            ("reserved_usd__gte", models.F("notional_reserved_usd")),
                            ("spent_usd__gte", models.F("notional_spent_usd")),
                        ),
                        name="budget_window_sums",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="RunReservation",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "run_id",
                        "window_id",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("amount_usd", models.DecimalField(decimal_places=6, max_digits=20)),
                ("cost_usd", models.DecimalField(decimal_places=6, max_digits=20, null=True)),
                ("is_estimate", models.BooleanField(default=False)),
                ("is_notional", models.BooleanField()),
                ("settled_at", models.DateTimeField(null=True)),
                (
                    "environment",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="workspaces.environment",
                    ),
                ),
                (
                    "run",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="triggers.run",
                    ),
                ),
                (
                    "window",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="triggers.budgetwindow",
                    ),
                ),
            ],
            options={
                "db_table": "run_reservation",
                "indexes": [
                    models.Index(
                        condition=models.Q(("settled_at__isnull", True)),
                        fields=["run"],
                        name="run_reservation_open",
                    ),
                    models.Index(
                        condition=models.Q(("is_estimate", True)),
                        fields=["settled_at"],
                        name="run_reservation_estimate",
                    ),
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            ("amount_usd__gte", 0),
                            models.Q(
                                ("cost_usd__isnull", True), ("cost_usd__gte", 0), _connector="OR"
                            ),
                        ),
                        name="run_reservation_amounts",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                ("cost_usd__isnull", True),
                                ("is_estimate", False),
                                ("settled_at__isnull", True),
                            ),
                            models.Q(("cost_usd__isnull", False), ("settled_at__isnull", False)),
                            _connector="OR",
                        ),
                        name="run_reservation_settled",
                    ),
                ],
            },
        ),
        migrations.AddField(
            model_name="trigger",
            name="max_cost_usd",
            field=models.DecimalField(decimal_places=6, max_digits=14, null=True),
        ),
        AddConstraintNotValid(
            model_name="trigger",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("max_cost_usd__isnull", True), ("max_cost_usd__gt", 0), _connector="OR"
                ),
                name="trigger_max_cost_usd",
            ),
        ),
        *(_key(*each) for each in _KEYS),
    ]
