"""The search of each list finds rows by all that its search box promises."""

from typing import Any
from uuid import UUID

import pytest
from django.contrib.admin.utils import get_fields_from_path

from audit.models import AuditEntry
from pipedai.admin.site import site
from pipedai.admin.tests.test_pages import ids_in
from pipedai.admin.values import list_of
from testing.probes.plans import explained, prefer_indexes
from testing.world.copies import add_copies
from testing.world.runs import Runs
from triggers.models import Run, Trigger


def write(row: Any, path: str, value: str) -> None:
    """Writes a value to a column of the row, or of the row that the path leads to from it."""
    *way, column = path.split("__")
    owner: Any = (
        get_fields_from_path(type(row), "__".join(way))[-1].related_model if way else type(row)
    )
    key = type(row).objects.filter(pk=row.pk).values_list("__".join([*way, "pk"]))[0]
    owner.objects.filter(pk__in=key).update(**{column: value})


def test_each_declared_column_and_address_and_the_id_find_the_row(desk, stage, subtests):
    admin: Any
    for model, admin in site._registry.items():
        row: Any = model._default_manager.order_by("pk").first()
        assert row or not admin.searched_text, f"the stage has no {model.__name__}"
        address, _ = admin.searched_address or ("", "")
        email = f"{address}__email".removeprefix("id__") if address else ""
        for n, path in enumerate(filter(None, [*admin.searched_text, email])):
            written = f"needle-{n}@{model._meta.model_name}.example"
            term = f" {written.upper()} " if path == email else written[1:-3]
            write(row, path, written)
            with subtests.test(f"{model.__name__} by {path}"):
                assert str(row.pk) in ids_in(desk.get(list_of(model), {"q": term}))
                assert ids_in(desk.get(list_of(model), {"q": f"{term.strip()}-not"})) == []
        if row:
            whole = str(row.pk)
            assert ids_in(desk.get(list_of(model), {"q": whole})) == [whole]
            # The last one is what a list shows.
            for part in (whole[:8], f" {whole[:13].upper()} ", whole[-8:], f"…{whole[-8:]}"):
                assert whole in ids_in(desk.get(list_of(model), {"q": part})), part


def test_the_beginning_of_an_id_finds_rows_by_the_primary_key_beside_any_filter(desk, cast):
    runs = Runs.of(cast)
    run_id = str(runs.ended())
    add_copies(Run, UUID(run_id), 3000)
    prefer_indexes()
    for filters in ({}, {"environment": str(cast.environment.id), "status": "succeeded"}):
        with explained("SELECT") as plans:
            found = ids_in(desk.get(list_of(Run), {"q": run_id[:8], **filters}))
        assert found == [run_id]
        # Two looks whether there is such an id, and the row.
        assert plans.rows_read("run") == 3
    assert ids_in(desk.get(list_of(Run), {"q": run_id[:8], "status": "failed"})) == []
    assert ids_in(desk.get(list_of(Run), {"q": run_id[:7]})) == []


def test_a_name_that_looks_like_the_beginning_of_an_id_is_found(desk, cast):
    named = cast.add_trigger(name="of deadbeef")
    assert ids_in(desk.get(list_of(Trigger), {"q": "deadbeef"})) == [str(named)]


@pytest.mark.parametrize("term", ["ffffffff", "00000000", "e677d21f"])
def test_times_that_no_calendar_has_begin_no_audit_entrys_id(desk, cast, term):
    assert ids_in(desk.get(list_of(AuditEntry), {"q": term})) == []
