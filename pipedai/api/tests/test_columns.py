"""No field of a body takes a longer text or a larger number than the column that keeps it."""

from decimal import Decimal

from django.apps import apps
from django.contrib.postgres.fields import ArrayField
from django.db import connection, models
from django.urls import get_resolver
from rest_framework import serializers

from pipedai.api.fields import MoneyField
from pipedai.api.serializers import Body

# The columns that have another name than the field's attribute; None where nothing is kept of the value itself.
KEPT_AS = {
    "RegistrationTokenBody.label": "name",
    "new_email": "email",
    "client_secret": "grant_secrets",
    **dict.fromkeys(["password", "new_password", "current_password"]),
    **dict.fromkeys(
        ["token", "registration_token", "invitation_token", "code", "device_code", "user_code"]
    ),
    **dict.fromkeys(["count", "wait", "digest", "accept_origins"]),
    # What a browser brings is kept nowhere.
    **dict.fromkeys(
        ["BeginBody.next", *(f"FinishBody.{name}" for name in ("state", "iss", "error"))]
    ),
    # These are parts of JSON.
    **dict.fromkeys(["header", "prefix", "timestampHeader", "path", "windowSeconds"]),
    "expiresAfterSeconds": None,
    "SummaryBody.at": None,
}


def bodies(base=Body):
    assert get_resolver().url_patterns, "the views import the serializers"
    for body in base.__subclasses__():
        yield from (body, *bodies(body))


def fields_of(body):
    """Yields the texts and numbers of a body, by the attribute that their values get; lists by their items."""
    for field in body().fields.values():
        items = field.child if isinstance(field, serializers.ListField) else field
        if isinstance(items, serializers.CharField | serializers.IntegerField | MoneyField):
            yield str(field.source), items


FIELDS = {
    f"{body.__module__}.{body.__name__}.{name}": field
    for body in bodies()
    for name, field in fields_of(body)
}


def columns(name):
    """Returns the columns with this name, in whichever of our tables: a value must fit into all of them. A column of
    choices keeps no free text.
    """
    found = (
        field.base_field if isinstance(field, ArrayField) else field
        for model in apps.get_models()
        for field in model._meta.concrete_fields
        if field.attname == name
        and not field.choices
        and not model.__module__.startswith("django.")
    )
    kinds = models.CharField | models.TextField | models.BinaryField | models.IntegerField
    return [column for column in found if isinstance(column, kinds | models.DecimalField)]


def takes(field):
    """Returns the least and the largest number, or length of a text, that a field takes. None is no bound."""
    if isinstance(field, MoneyField):
        return 0, field.MAX
    if isinstance(field, serializers.CharField):
        return 0, getattr(field, "cut_to", field.max_length)
    if hasattr(field, "range"):
        return field.range[0], field.range[-1]
    return field.min_value, field.max_value


def keeps(column):
    if isinstance(column, models.DecimalField):
        assert Decimal(1).scaleb(-column.decimal_places) <= MoneyField.PLACES
        return 0, Decimal(10) ** (column.max_digits - column.decimal_places) - 1
    if isinstance(column, models.IntegerField):
        return connection.ops.integer_field_range(column.get_internal_type())
    return 0, column.max_length if isinstance(column, models.CharField) else None


def test_no_field_takes_more_than_its_column_keeps():
    for path, field in FIELDS.items():
        body, name = path.split(".")[-2:]
        kept_as = KEPT_AS.get(f"{body}.{name}", KEPT_AS.get(name, name))
        found = columns(kept_as)
        assert found or kept_as is None, f"Say in KEPT_AS which column keeps {path}."
        least, most = takes(field)
        for column in found:
            smallest, largest = keeps(column)
            says = f"{path} takes {least} to {most}, and {column} keeps {smallest} to {largest}"
            assert largest is None or (most is not None and most <= largest), says
            assert least is not None, says
            assert least >= smallest, says
