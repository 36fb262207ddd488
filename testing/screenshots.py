"""Takes the pictures of docs/images: pages of the console on a new database with the demo, in the system's Chromium."""

import json
import sys
import time

import httpx

from pipedai import env
from testing.processes.browser import chromium
from testing.processes.failure import ProcessFailed
from testing.processes.stack import Database, database, scheduler_processes, web

IMAGES = env.BASE_DIR / "docs" / "images"
_SIZE = {"width": 1280, "height": 800}
_LONGEST_SECONDS = 60.0
# Each picture, with the words of the links that lead to its page from the console's first one.
_PICTURES = {"attention": (), "run": ("Open the run",)}


def main() -> int:
    """Take the pictures. Return the exit code."""
    try:
        with database() as on:
            on.python("manage.py", "seed_demo")
            with web(on, processes=1) as served, scheduler_processes(on, 1):
                url = f"http://127.0.0.1:{served.port}"
                _wait_until_told(on, url)
                _take(on, url)
    except ProcessFailed as failure:
        print(failure, file=sys.stderr)
        return 1
    return 0


def _wait_until_told(on: Database, url: str) -> None:
    """Wait until the demo's incident has been told, and let the demo's machine call once, as it does in bin/run."""
    worker = json.loads((on.directory / "demo-worker.json").read_text())
    called = httpx.get(
        f"{url}/api/v1/workers/{worker['workerId']}/poll",
        headers={"Authorization": f"Bearer {worker['workerToken']}"},
        trust_env=False,
    )
    called.raise_for_status()
    deadline = time.monotonic() + _LONGEST_SECONDS
    while on.one("SELECT count(*) AS n FROM notice WHERE status <> 'delivered'")["n"]:
        if time.monotonic() > deadline:
            raise ProcessFailed("Nobody was told of the demo's failure within a minute.")
        time.sleep(0.25)


def _take(on: Database, url: str) -> None:
    demo = json.loads((on.directory / "demo.json").read_text())
    IMAGES.mkdir(exist_ok=True)
    with chromium() as browser:
        page = browser.new_page(base_url=url, viewport=_SIZE, color_scheme="light")  # type: ignore[arg-type]
        page.goto("/console/")
        page.fill("[name=email]", demo["email"])
        page.fill("[name=password]", demo["password"])
        page.click("main button")
        page.wait_for_selector("nav")
        first = page.url
        for name, links in _PICTURES.items():
            page.goto(first)
            for words in links:
                page.click(f"text={words}")
            page.wait_for_load_state("load")
            page.screenshot(path=IMAGES / f"{name}.png")
            print(f"docs/images/{name}.png", flush=True)


if __name__ == "__main__":
    sys.exit(main())
