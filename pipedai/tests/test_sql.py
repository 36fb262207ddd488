"""Statements run without Django's cursor wrapper, unless somebody listens (docs/decisions/fast-paths.md)."""

import pytest
from django.db import DataError, connection, transaction
from django.db.transaction import TransactionManagementError

from pipedai.sql import execute, fetch_all, fetch_one, sqlstate

pytestmark = pytest.mark.django_db

NUMBERS = "SELECT n, n * %(factor)s AS product FROM generate_series(1, 2) n"
DIVIDE = "SELECT 1 / %(by)s::int AS n"
PRODUCTS = [{"n": 1, "product": 3}, {"n": 2, "product": 6}]


def pass_on(execute, sql, params, many, context):
    return execute(sql, params, many, context)


@pytest.fixture(params=["directly", "through-the-wrapper"])
def _either_way(request):
    if request.param == "directly":
        assert not connection.execute_wrappers
        yield
    else:
        with connection.execute_wrapper(pass_on):
            yield


@pytest.mark.usefixtures("_either_way")
def test_both_ways_give_the_same():
    assert fetch_all(NUMBERS, {"factor": 3}) == PRODUCTS
    assert fetch_one(NUMBERS, {"factor": 3}) == PRODUCTS[0]
    assert fetch_one("SELECT WHERE false", {}) is None
    assert execute(NUMBERS, {"factor": 3}) == 2


@pytest.mark.usefixtures("_either_way")
def test_both_ways_raise_djangos_errors_and_refuse_a_broken_transaction():
    with pytest.raises(DataError) as caught, transaction.atomic():
        fetch_all(DIVIDE, {"by": 0})
    assert sqlstate(caught.value) == "22012"
    with transaction.atomic():
        transaction.set_rollback(True)
        with pytest.raises(TransactionManagementError):
            fetch_all(NUMBERS, {"factor": 3})
        transaction.set_rollback(False)


def test_a_wrapper_sees_the_statement():
    seen = []

    def keep(execute, sql, params, many, context):
        seen.append((sql, params))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(keep):
        fetch_all(NUMBERS, {"factor": 3})
    assert seen == [(NUMBERS, {"factor": 3})]
