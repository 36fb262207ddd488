"""Times the statements of a call, and asks PostgreSQL for the plan that each of them really had."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.db import connection

_SAID = "duration:"
# How often PostgreSQL plans a prepared statement anew, under plan_cache_mode = auto.
_OWN_PLANS = 5
_PLANNED = ("SELECT", "WITH", "INSERT", "UPDATE", "DELETE")


@dataclass(slots=True)
class Statement:
    """One statement: how many seconds the driver waited for it, and its plan if that was asked for."""

    sql: str
    seconds: float
    plan: dict[str, Any] | None = None


def watch(call: Callable[[], object], *, repeats: int) -> tuple[float, list[Statement]]:
    """Call `repeats` times. Return the database seconds of the fastest call after the fifth, and the statements of the
    last call, each with its own fastest time.

    PostgreSQL plans a prepared statement anew five times, and then may use one general plan. So only later calls show
    what a long-lived connection does. With few calls, all but the first count. The plans are those of the last call.
    """
    connection.ensure_connection()
    connection.connection.prepare_threshold = 0
    calls = []
    for _ in range(repeats - 1):
        with _watched() as statements:
            call()
        calls.append(statements)
    with _explained(), _watched() as explained:
        call()
    counted = calls[_OWN_PLANS:] or calls[1:] or [explained]
    fastest = min(sum(each.seconds for each in statements) for statements in counted)
    for nth, each in enumerate(explained):
        same = [one[nth] for one in counted if nth < len(one) and one[nth].sql == each.sql]
        each.seconds = min((one.seconds for one in same), default=each.seconds)
    return fastest, explained


@contextmanager
def _watched() -> Iterator[list[Statement]]:
    statements: list[Statement] = []
    without_plan: list[Statement] = []

    def hear(notice: Any) -> None:
        # In a transaction PostgreSQL finishes a SELECT, and sends its plan, only when the next statement comes.
        said = notice.message_primary or ""
        if said.startswith(_SAID) and without_plan:
            without_plan.pop(0).plan = json.loads(said[said.index("{") :])["Plan"]

    def time_it(
        execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any
    ) -> Any:
        if not sql.lstrip(" \n(").startswith(_PLANNED):
            return execute(sql, params, many, context)
        statement = Statement(sql, 0.0)
        statements.append(statement)
        without_plan.append(statement)
        began = time.perf_counter()
        result = execute(sql, params, many, context)
        statement.seconds = time.perf_counter() - began
        return result

    driver = connection.connection
    driver.add_notice_handler(hear)
    try:
        with connection.execute_wrapper(time_it):
            yield statements
    finally:
        driver.remove_notice_handler(hear)


@contextmanager
def _explained() -> Iterator[None]:
    """Ask for the plans of this session. `Database.explain_plans` lets the application turn auto_explain on."""
    with connection.cursor() as cursor:
        cursor.execute("SET auto_explain.log_min_duration = 0")
        try:
            yield
        finally:
            cursor.execute("SET auto_explain.log_min_duration = -1")
