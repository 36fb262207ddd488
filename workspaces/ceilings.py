"""Refuses to add a row when an environment already has as many of the kind as it may have (SPEC §4)."""

from pipedai.api.errors import CeilingReached


def check_ceiling(name: str, things: str, *, held: int, limit: int) -> None:
    """Raises CeilingReached if the environment already has `limit` rows of some kind. The caller has counted them as
    `held`.

    Call it with the environment's row locked (`workspaces.locks`), so that nobody else counts at the same time. `name`
    is the API's name for the ceiling. `things` is the plural word by which the error's message calls the rows.
    """
    if held >= limit:
        raise CeilingReached(name, f"The environment has {limit} {things}, as many as it may.")
