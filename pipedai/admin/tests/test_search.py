"""The search of each list finds rows by all that its search box promises."""

from typing import Any

from django.contrib.admin.utils import get_fields_from_path

from pipedai.admin.site import site
from pipedai.admin.tests.test_pages import ids_in
from pipedai.admin.values import list_of


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
            assert ids_in(desk.get(list_of(model), {"q": str(row.pk)})) == [str(row.pk)]
