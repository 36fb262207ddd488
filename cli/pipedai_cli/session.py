"""What each command begins with: the options of `pipedai`, the key, the API and the output."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, update_wrapper
from typing import Any, Concatenate, ParamSpec, TypeVar

import click

from pipedai_cli import keys
from pipedai_cli.api import Api, Exit, Failure, wrong_usage
from pipedai_cli.output import Output, shorten

# As many as no environment has: a name counts only if no other row has it.
_ALL = 100_000

P = ParamSpec("P")
R = TypeVar("R")

# How many names of what there is a sentence has.
_MOST_NAMES = 5
_LONGEST_NAME = 60


@dataclass
class Session:
    profile_name: str = keys.DEFAULT_PROFILE
    as_json: bool = False

    @cached_property
    def out(self) -> Output:
        return Output(as_json=self.as_json)

    @cached_property
    def profile(self) -> keys.Profile:
        """The key of PIPEDAI_KEY, for programs, else that of the profile. Raises Failure if nobody has signed in."""
        # Files that variables are read from often end with a line break. An error about the header would show the key.
        if key := os.environ.get("PIPEDAI_KEY", "").strip():
            if not re.fullmatch(r"\w+", key, re.ASCII):
                raise wrong_usage("PIPEDAI_KEY is no key: letters, digits and underscores.")
            url = os.environ.get("PIPEDAI_URL")
            if not url:
                raise wrong_usage("PIPEDAI_KEY is set, but PIPEDAI_URL, the service's URL, is not.")
            return keys.Profile(url=url, environment_id="", key=key)
        profile = keys.load(self.profile_name)
        if profile is None or not profile.key:
            raise wrong_usage(f"You are not signed in. `{self._login} --url URL` does it.")
        return profile

    @property
    def _login(self) -> str:
        is_default = self.profile_name == keys.DEFAULT_PROFILE
        return "pipedai login" if is_default else f"pipedai --profile {self.profile_name} login"

    @cached_property
    def api(self) -> Api:
        return Api(self.profile.url, self.profile.key)

    def close(self) -> None:
        """Close the connections, if there are any."""
        if "api" in vars(self):
            self.api.close()

    @cached_property
    def environment_id(self) -> str:
        return self.profile.environment_id or str(self.api.get("/whoami")["environmentId"])

    @property
    def environment(self) -> str:
        """The path of the key's environment."""
        return f"/environments/{self.environment_id}"

    def console(self, path: str = "") -> str:
        """Return the URL of a page of the console."""
        return f"{self.api.url}/console/{path}"


def with_session(function: Callable[Concatenate[Session, P], R]) -> Callable[P, R]:
    """Pass the Session to a command."""

    def call(*args: P.args, **options: P.kwargs) -> R:
        context = click.get_current_context()
        return function(context.find_object(Session) or Session(), *args, **options)

    return update_wrapper(call, function)


def found_by(session: Session, kind: str, given: str) -> dict[str, Any]:
    """Return the row of this kind, such as `triggers`, whose id, key or whole name was given. Raises Failure if it is
    none or several.
    """
    if _is_id(given):
        row: dict[str, Any] = session.api.get(f"/{kind}/{given}")
        return row
    rows = list(session.api.items(f"{session.environment}/{kind}", _ALL))
    fitting = [row for row in rows if given in {row.get("key"), row.get("name")}]
    if len(fitting) == 1:
        return fitting[0]
    what = kind.removesuffix("s")
    if not fitting:
        names = [shorten(str(row.get("key") or row.get("name")), _LONGEST_NAME) for row in rows]
        near = difflib.get_close_matches(given, names, _MOST_NAMES, 0.5) or names[:_MOST_NAMES]
        there = f"There is {', '.join(near)}" if names else "There is none"
        others = f" and {len(names) - len(near)} more" if len(names) > len(near) else ""
        raise Failure(
            Exit.REFUSED, f"No {what} has the id, key or name “{given}”. {there}{others}."
        )
    ids = ", ".join(row["id"] for row in fitting)
    raise wrong_usage(f"{len(fitting)} {kind} have the name “{given}”: give one of the ids {ids}.")


def _is_id(given: str) -> bool:
    return len(given) == 36 and given.count("-") == 4


def _set_json(context: click.Context, _option: click.Parameter, value: bool) -> None:
    if value:
        context.ensure_object(Session).as_json = True


# Each command that shows something takes it.
json_option = click.option(
    "--json", is_flag=True, expose_value=False, callback=_set_json, help="Print the API's JSON."
)
limit_option = click.option(
    "--limit",
    type=click.IntRange(1, 10_000),
    default=20,
    show_default=True,
    help="How many, at most.",
)
