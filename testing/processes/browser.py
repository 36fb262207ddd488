"""Drives the system's Chromium, to see the admin and the docs as a person does."""

import asyncio
import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from axe_playwright_python.base import AXE_SCRIPT, AxeResults
from playwright.sync_api import Browser, Page, sync_playwright

from testing.processes.programs import program

# The flags keep the browser from connecting to anything but one server on this machine.
_FLAGS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

# The rules of axe that a colour scheme can break: our style sheets give a dark page other colours, nothing else.
COLOURS = ("color-contrast", "link-in-text-block")

# A rule that axe leaves off unless it is asked for: who speaks to a page says the words that they see (WCAG 2.5.3).
_TURNED_ON = {"label-content-name-mismatch": {"enabled": True}}


@contextmanager
def chromium() -> Iterator[Browser]:
    """Lends the headless browser of this process, which has no cookies and no pages then. While it is lent, this thread
    can't use the database.

    To start a browser costs more than most of what is done with it, so it stays until the process ends.
    """
    if not (_started and _started[-1].browser.is_connected()):
        _started.append(_start())
    browser, loop = _started[-1]
    # Playwright's loop runs as long as the browser does. It only counts as this thread's while the browser is lent.
    asyncio._set_running_loop(loop)
    try:
        yield browser
    finally:
        for context in browser.contexts:
            context.close()
        asyncio._set_running_loop(None)


class _Started(NamedTuple):
    browser: Browser
    loop: asyncio.AbstractEventLoop


_started: list[_Started] = []


def _start() -> _Started:
    profile = tempfile.mkdtemp(prefix="chromium-")
    playwright = sync_playwright().start()
    loop = asyncio.get_running_loop()
    browser = playwright.chromium.launch(
        executable_path=program("chromium"),
        # Chromium refuses to run as root with its sandbox.
        args=[*_FLAGS, *(["--no-sandbox"] if os.geteuid() == 0 else [])],
        env={**os.environ, "HOME": profile, "XDG_CONFIG_HOME": profile},
    )

    @atexit.register
    def stop() -> None:
        asyncio._set_running_loop(loop)
        browser.close()
        playwright.stop()
        shutil.rmtree(profile, ignore_errors=True)

    return _Started(browser, loop)


def screenshot(page: Page, name: str, *, full_page: bool = False) -> None:
    """Keeps a picture of a page in the directory that PIPEDAI_SCREENSHOTS names, if it names one."""
    if directory := os.environ.get("PIPEDAI_SCREENSHOTS"):
        page.screenshot(path=Path(directory) / f"{name}.png", full_page=full_page)


def load_axe(page: Page) -> None:
    """Gives each page that is opened from now on axe's script, which takes half the CPU time of sending it there."""
    page.add_init_script(AXE_SCRIPT)


def axe_finds(page: Page, *rules: str) -> str:
    """Returns what axe finds wrong with a page as it is shown now, or an empty text. It tries all of its rules unless
    some are named.

    A page keeps the script, and only what is wrong leaves the browser: both cost more than most rules.
    """
    if page.evaluate("!window.axe"):
        page.evaluate(AXE_SCRIPT)
    options = {"resultTypes": ["violations"], "rules": _TURNED_ON}
    options |= {"runOnly": rules} if rules else {}
    violations = page.evaluate("async options => (await axe.run(options)).violations", options)
    found = AxeResults({"violations": violations})
    return str(found.generate_report()) if found.violations_count else ""


def cut_off(page: Page) -> list[str]:
    """Returns the elements that are taller than their box, which hides a part of them."""
    found: list[str] = page.evaluate(
        """() => [...document.querySelectorAll('#content *')]
            .filter(each => getComputedStyle(each).overflowY === 'hidden')
            .filter(each => each.clientHeight && each.scrollHeight > each.clientHeight + 1)
            .map(each => `${each.tagName}.${each.className} ${each.textContent.slice(0, 60)}`).slice(0, 8)"""
    )
    return found


def sideways_overflow(page: Page) -> list[str]:
    """Returns the elements that extend beyond the page's right edge, if the page can be scrolled there."""
    found: list[str] = page.evaluate(
        """() => {
            const width = document.documentElement.clientWidth;
            if (document.documentElement.scrollWidth <= width) return [];
            return [...document.querySelectorAll('body *')]
                .filter(each => each.getBoundingClientRect().right > width + 1)
                .map(each => `${each.tagName}.${each.className} ${each.textContent.slice(0, 60)}`).slice(0, 8);
        }"""
    )
    return found
