"""Compares the pinned packages with the advisories of OSV (https://osv.dev), if that can be reached.

Ends with 1 if an advisory is about a pinned version. Without a network it says so, and ends with 0.
"""

import re
import sys
from pathlib import Path

import httpx

URL = "https://api.osv.dev/v1/querybatch"
LOCKS = ("requirements.txt", "requirements-dev.txt", "requirements-otel.txt")
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)


def pinned(folder: Path) -> list[tuple[str, str]]:
    """Returns the names and versions of all pinned packages."""
    return sorted({pin for lock in LOCKS for pin in _PIN.findall((folder / lock).read_text())})


def advisories(pins: list[tuple[str, str]], url: str = URL) -> list[str]:
    """Returns a line for each advisory about a pinned version. Raises httpx.HTTPError, ValueError or KeyError."""
    asked = [
        {"package": {"name": name, "ecosystem": "PyPI"}, "version": version}
        for name, version in pins
    ]
    answer = httpx.post(url, json={"queries": asked}, timeout=10).raise_for_status()
    results = answer.json()["results"]
    if len(results) != len(pins):
        raise ValueError("The index answered for other packages.")
    return [
        f"{name} {version}: https://osv.dev/{found['id']}"
        for (name, version), result in zip(pins, results, strict=True)
        for found in result.get("vulns", ())
    ]


def main(url: str = URL) -> int:
    pins = pinned(Path())
    try:
        found = advisories(pins, url)
    except (httpx.HTTPError, ValueError, KeyError) as error:
        print(f"The index of advisories was not reached: {type(error).__name__}.")
        return 0
    print("\n".join(found) or f"No advisory is about the {len(pins)} pinned packages.")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
