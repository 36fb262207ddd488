"""The commands `login`, `logout` and `whoami`, which get, forget and show the key that this program uses."""

import platform
import time
import webbrowser
from urllib.parse import urlsplit

import click

from pipedai_cli.api import Api, Exit, Failure, Json, Refused, wrong_usage
from pipedai_cli.output import local_time
from pipedai_cli.session import (
    DEFAULT_PROFILE,
    Profile,
    Session,
    examples,
    load_profile,
    remove_profile,
    save_profile,
    with_json,
    with_session,
)

# How long the code that a person types works.
_CODE_WORKS_SECONDS = 600
_THIS_MACHINE = {"localhost", "127.0.0.1", "::1"}


@click.command(
    epilog=examples(
        "pipedai login --url https://pipedai.example",
        "pipedai --profile staging login --url https://pipedai.example",
    )
)
@click.option("--url", envvar="PIPEDAI_URL", help="The service; by default that of the last login.")
@click.option("--no-browser", is_flag=True, help="Only print the page's address.")
@with_session
def login(session: Session, url: str | None, no_browser: bool) -> None:
    """Sign in on a page of the service.

    You type the code that is shown here, and choose the environment and the role of the key that this
    program gets, at most your own. The key is good for 90 days, and Settings lists it.
    """
    known = load_profile(session.profile_name) or load_profile(DEFAULT_PROFILE)
    url = url or (known.url if known else None)
    if not url:
        raise wrong_usage("Say which service: `pipedai login --url https://pipedai.example`.")
    session.api = api = Api(url)
    if api.url.startswith("http://") and urlsplit(api.url).hostname not in _THIS_MACHINE:
        session.out.note(f"{api.url} is not https: the key travels in plain text.")
    name = platform.node() or "a computer"
    if session.profile_name != DEFAULT_PROFILE:
        # With this name, a person who revokes keys can tell the agent's from their own.
        name += f", {session.profile_name}"
    begun = api.post("/enrollments/device", {"label": name[:255], "for": "command_line"})
    page = begun["verificationUri"]
    session.out.note(f"Open {page} and type the code {begun['userCode']}.")
    # A false service could name a file or a program as its page, and a browser would open it.
    is_page = page.startswith(("https://", "http://"))
    if is_page and not no_browser and session.out.shows_progress:
        webbrowser.open(page)
    with session.out.progress("Waiting for you to approve."):
        answer = _wait_for_key(api, begun)
    profile = Profile(
        url=api.url,
        environment_id=answer["environmentId"],
        environment_name=answer["environmentName"],
        role=answer["apiKey"]["role"],
        expires_at=answer["apiKey"]["expiresAt"],
        key=answer["token"],
    )
    where = save_profile(session.profile_name, profile)
    until = local_time(profile.expires_at)
    session.out.line(
        f"You are {profile.role} of {profile.environment_name} until {until}. The key is in {where}."
    )


def _wait_for_key(api: Api, begun: Json) -> Json:
    """Ask until somebody has decided, as RFC 8628 §3.5 says. While the service can't be reached, for example because it
    restarts, ask ever more rarely. Raises Failure if the login was denied, or if it is too late.
    """
    interval = float(begun["interval"])
    ends_at = time.monotonic() + _CODE_WORKS_SECONDS
    while True:
        time.sleep(interval)
        try:
            answer: Json = api.post("/enrollments/key", {"deviceCode": begun["deviceCode"]})
            return answer
        except Failure as failure:
            code = failure.code if isinstance(failure, Refused) else "unreachable"
            if code == "slow_down":
                interval += 5
            elif code in {"throttled", "unreachable"} and time.monotonic() < ends_at:
                interval *= 2
            elif code == "enrollment_denied":
                raise Failure(Exit.REFUSED, "The login was denied.") from None
            elif code == "enrollment_expired":
                raise Failure(
                    Exit.REFUSED, "Nobody approved it in time. Begin anew with `pipedai login`."
                ) from None
            elif code != "authorization_pending":
                raise


@click.command(epilog=examples("pipedai logout"))
@with_session
def logout(session: Session) -> None:
    """Forget the key of this machine.

    The key itself stays good until it expires; an admin revokes it in Settings.
    """
    remove_profile(session.profile_name)
    session.out.line(
        "This machine has forgotten the key. Settings → Keys in the console revokes it."
    )


@click.command(epilog=examples("pipedai whoami --json"))
@with_json
def whoami(session: Session) -> None:
    """Show what the key may do, where, and until when."""
    answer = session.api.get("/whoami")
    if session.out.printed_json(answer):
        return
    session.out.details(
        [
            ("service", session.profile.url),
            ("key", answer["name"]),
            ("role", answer["role"]),
            ("environment", session.profile.environment_name or answer["environmentId"]),
            ("expires", local_time(answer["expiresAt"], none="never")),
        ]
    )


COMMANDS = [login, logout, whoami]
