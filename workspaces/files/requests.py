"""What plan and apply are asked, and how they name the resource that is wrong."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rest_framework.exceptions import ValidationError

from pipedai.api.errors import ApiError, Invalid
from pipedai.api.exceptions import as_invalid
from workspaces.files.kinds import Kind, kinds

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Request:
    """The body of plan and apply. `digest` and `prune` are apply's; a plan has no digest."""

    managed_by: str
    resources: Sequence[Json]
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    digest: str | None = None
    prune: bool = False
    accept_origins: Sequence[str] = ()

    @property
    def is_plan(self) -> bool:
        return self.digest is None


def check_resources(resources: Sequence[Json]) -> None:
    """Raises Invalid for a resource of no kind, without key, or that is there twice."""
    known = {kind.name for kind in kinds()}
    seen: set[tuple[str, str]] = set()
    errors: dict[str, list[str]] = {}
    for index, resource in enumerate(resources):
        kind, key = resource.get("kind"), resource.get("key")
        if not isinstance(kind, str) or kind not in known:
            errors[f"resources.{index}.kind"] = [f"Must be one of {', '.join(sorted(known))}."]
        elif not isinstance(key, str) or not key:
            errors[f"resources.{index}.key"] = ["This field is required."]
        elif (kind, key) in seen:
            errors[f"resources.{index}.key"] = [f"There is another {kind} with the key {key}."]
        else:
            seen.add((kind, key))
    if errors:
        raise Invalid(errors)


@contextmanager
def named(name: str, kind: Kind) -> Iterator[None]:
    """Puts the name of a resource, such as `trigger nightly`, before what is wrong with it, and says it of the fields
    that files have.
    """
    try:
        yield
    except ValidationError as error:
        raise _with_name(as_invalid(error), name, kind) from None
    except Invalid as error:
        raise _with_name(error, name, kind) from None
    except ApiError as error:
        error.message = f"{name}: {error.message}"
        raise


def _with_name(error: Invalid, name: str, kind: Kind) -> Invalid:
    short = {long: short for short, long in kind.renamed.items()}
    fields = {
        f"{name}.{short.get(field, field)}": messages for field, messages in error.fields.items()
    }
    return Invalid(fields, form=[f"{name}: {message}" for message in error.form])
