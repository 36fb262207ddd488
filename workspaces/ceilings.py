"""Refuses what would be one more than an environment may hold (SPEC §4)."""

from pipedai.api.errors import CeilingReached


def check_ceiling(name: str, things: str, *, held: int, limit: int) -> None:
    """Raises CeilingReached if the environment already holds `limit` things, counted by the caller as `held`.

    Call it with the environment's row locked (`workspaces.locks`), so that nobody else counts at the same time.
    `name` is what the API calls the ceiling; `things` are named in the message.
    """
    if held >= limit:
        raise CeilingReached(name, f"The environment has {limit} {things}, as many as it may.")
