"""Starts a run of the demo's trigger through the API, as a client would, and shows its states until it ends."""

import json
import sys
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx

_READY_SECONDS = 60.0
_RUN_SECONDS = 120.0
_PAUSE_SECONDS = 0.25

# The timestamps of a run in the API, each with the state that begins at that time.
_MOMENTS = (("queuedAt", "queued"), ("claimedAt", "claimed"), ("startedAt", "running"))


class DemoFailed(Exception):  # noqa: N818
    """The demo can't continue. The exception's message is one sentence that says why."""


def show(url: str, seeded: dict[str, str], say: Callable[[str], None]) -> None:
    """Start a run of the demo's trigger through the API, and `say` each state of it. Raises DemoFailed."""
    ask = partial(_ask, f"{url}/api/v1", seeded["apiKey"])
    run = ask("POST", f"/triggers/{seeded['triggerId']}/run")
    say(f"Fired the demo's trigger; its run is {run['id']}:")
    said: set[str] = set()
    deadline = time.monotonic() + _RUN_SECONDS
    while True:
        for moment, state in _MOMENTS:
            if run[moment] and state not in said:
                said.add(state)
                say(f"  {state:<9} {_clock(run[moment])}")
        if run["endedAt"]:
            message = run["shortMessage"] or run["errorMessage"] or ""
            say(f"  {run['status']:<9} {_clock(run['endedAt'])}  {message}")
            say(f"  {_figures(run)}")
            return
        if time.monotonic() > deadline:
            raise DemoFailed(f"The demo's run is still {run['status']}.")
        time.sleep(_PAUSE_SECONDS)
        run = ask("GET", f"/runs/{run['id']}")


def _ask(url: str, key: str, method: str, path: str) -> Any:
    headers = {"Authorization": f"Bearer {key}"}
    try:
        answer = httpx.request(method, f"{url}{path}", headers=headers, trust_env=False, timeout=10)
    except httpx.HTTPError as error:
        raise DemoFailed(f"{method} {path} got no answer: {error}.") from None
    if answer.is_error:
        raise DemoFailed(f"{method} {path} answered {answer.status_code}: {answer.text}")
    return answer.json()


def wait_until_ready(url: str, path: str = "/api/v1/health") -> None:
    """Wait until the server at `url` answers without a server error. Raises DemoFailed after a minute."""
    deadline = time.monotonic() + _READY_SECONDS
    said = "nothing"
    while time.monotonic() < deadline:
        try:
            answer = httpx.get(f"{url}{path}", trust_env=False)
        except httpx.HTTPError:
            pass
        else:
            if not answer.is_server_error:
                return
            said = f"{answer.status_code} {answer.text}"
        time.sleep(_PAUSE_SECONDS)
    raise DemoFailed(f"{url} is not ready after {_READY_SECONDS:.0f} s; it answered {said}.")


def _clock(moment: str) -> str:
    return datetime.fromisoformat(moment).astimezone().strftime("%H:%M:%S.%f")[:-3]


def _figures(run: dict[str, Any]) -> str:
    """Return a line with the run's model, tokens, cost, tool calls and output, as its worker has reported them."""
    told = [f"model {run['model']}"] if run["model"] is not None else []
    told += [
        f"{run[field]} {words}"
        for field, words in (("inputTokens", "tokens in"), ("outputTokens", "tokens out"))
        if run[field] is not None
    ]
    if run["costUsd"] is not None:
        told.append(f"cost ${run['costUsd']}")
    if run["toolCalls"] is not None:
        told.append(f"tool calls {run['toolCalls']['total']}")
    if run["output"] is not None:
        told.append(f"output {json.dumps(run['output'])}")
    return ", ".join(told) or "Its worker told no model, tokens or cost."


def main(url: str, file: str) -> int:
    """Show a run of the demo in `file`, written by `manage.py seed_demo`, at the API at `url`. Return the exit code."""
    try:
        wait_until_ready(url)
        show(url, json.loads(Path(file).read_text()), print)
    except DemoFailed as failure:
        print(failure, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
