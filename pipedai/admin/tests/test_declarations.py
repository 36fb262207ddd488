"""Every column of every model is on the page of its row or left out on purpose, so that a new one is not forgotten."""

from django.db import models

from pipedai.admin.fields import never_read
from pipedai.admin.site import site
from pipedai.env import BASE_DIR


def test_every_column_is_shown_or_left_out_on_purpose():
    assert site.check(None) == []


def test_a_forgotten_column_is_named_with_its_model_and_file(subtests):
    for model, admin in site._registry.items():
        with subtests.test(model.__name__):
            nothing = {"facts": (), "panels_read": (), "left_out": ("no_column",)}
            bare = type("Bare", (type(admin),), {"__module__": type(admin).__module__, **nothing})
            file = f"{type(admin).__module__.replace('.', '/')}.py"
            assert (BASE_DIR / file).is_file()
            told = [error.msg for error in bare(model, site).check() if error.id == "staff.E001"]
            plain = {
                field.name
                for field in model._meta.concrete_fields
                if not isinstance(field, models.BinaryField)
            } - never_read(model)
            assert {message.split()[0] for message in told} == {
                f"{model._meta.label}.{name}" for name in {*plain, "no_column"}
            }
            assert all(message.endswith(f"see {file}.") for message in told)
