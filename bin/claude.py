"""Installs the real Claude CLI, which is not free software, into a cache for tests (`bin/setup --claude`)."""

import fcntl
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from bin import packages

_ROOT = Path(__file__).resolve().parent.parent
NPM_NAME = "@anthropic-ai/claude-code"

# The versions of the Claude CLI that workers are tested with. NODE_20 is the newest that npm gives to Node 20.
PINNED = "2.1.332"
NODE_20 = "2.1.197"
# _HASHES has the SHA-512 of each version's download from npm, in the order of _PLATFORMS (`npm view
# @anthropic-ai/claude-code-PLATFORM@VERSION dist.integrity`).
_PLATFORMS = ("linux-x64", "linux-arm64", "darwin-x64", "darwin-arm64")
_HASHES = {
    PINNED: (
        "f4JWhzwYutJIHScC7/dYOPX6s28tt7ZADhsOi8zwOHq5fFPEuUeChh2NMfinSg0GrUckYxaeebC4h0DqiKzLcw==",
        "BlHNEtK38KBPWU31F4lUSS9sHclCyfWbThT1CErvxxH8+XcljYLZlQwdyXBkTD62rw1TgfE1u1a+quMWS0NSJg==",
        "i0GV2ejBOeHMXs+XPCd1IaJj1GV3VdZl8hiQD6hLMR/N7f4Nt8q4Edj1GYJCKXPLJa/zsE9Uv6r9rZ/ldVFQPQ==",
        "L/F5mypyB7SK59cesiAqGv1bVNd+8xTn0LF5kV6EGL6UMhofVJMFlokhDRoxNzANNC5i/5JdzfJyDOKUbZObiA==",
    ),
    NODE_20: (
        "rIlKmrY0QMyHgPRX/MYWNj039vbypICvI9jVe3rs9Xy2RnNklySjyPxqh62QadznzoftEO23uYQ1tFePcQ//bg==",
        "sx6SoGj3MNR5CV+YDkNtbLHXa1tn3G8qcYFgm1gnvOi9ODQUKbhiPfankJfkTMDVekOvnKJhm6i9hGFIPzp7cQ==",
        "DOPeGTQqJWVENJsxwMxJtLOx+7OBINEDg9trQldlJR1nBssaYzNj1WWxp37JYSBRjeYLhqLipvDqEA0LMglL7A==",
        "1FOVhJzkKGWgOEEsvaK3ylCEmjKeJiXwfKl7RtNEbiDj7OxhRQ1G1CLN0HGDTTq1QwY+Dm2x1Yscdv5NfobAxQ==",
    ),
}
VERSIONS = (PINNED, NODE_20)

# A folder has this file when its installation was finished.
_FINISHED = ".finished"


class CannotInstallError(Exception):
    """Something can't be installed here. The exception's message is a sentence that says why."""


def main() -> int:
    """Install what the cache lacks. If that is impossible, print a sentence that says why, and return 1."""
    try:
        if not all(map(cli, VERSIONS)):
            _install()
    except CannotInstallError as error:
        _say(str(error))
        return 1
    return 0


def cache() -> Path:
    named = os.environ.get("CLAUDE_CACHE")
    return Path(named).expanduser().absolute() if named else _ROOT / ".cache" / "claude"


def cli(version: str = PINNED) -> Path | None:
    folder = _cli_folder(version)
    found = folder / "node_modules" / f"{NPM_NAME}-{_platform()}" / "claude"
    return found if _finished(folder) else None


def _install() -> None:
    _say(
        "The claude CLI belongs to Anthropic and is licensed under its commercial terms"
        " (https://code.claude.com/docs/en/legal-and-compliance)."
    )
    cache().mkdir(parents=True, exist_ok=True)
    # This process waits while another installs into the same cache. The lock ends with the process.
    with (cache() / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for version in VERSIONS:
            folder = _cli_folder(version)
            if not _finished(folder):
                # The folder holds an installation that was not finished.
                shutil.rmtree(folder, ignore_errors=True)
                _say(f"Installing claude {version} from npm (200 to 400 MB)…")
                folder.mkdir()
                _install_cli(folder, version)
                (folder / _FINISHED).touch()


def _install_cli(folder: Path, version: str) -> None:
    name = _platform()
    if name not in _PLATFORMS:
        raise CannotInstallError(f"There is no claude {version} for {name} that the tests know.")
    expected = _HASHES[version][_PLATFORMS.index(name)]
    if packages.provide(["nodejs", "npm"]):
        raise CannotInstallError(
            "There is no npm here: install it (on Debian: apt-get install npm)."
        )
    (folder / "package.json").write_text('{"private": true}\n')
    package = f"{NPM_NAME}-{name}"
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--save-exact", "--loglevel=error"]
    command = ["npm", "install", *options, f"--prefix={folder}", f"{package}@{version}"]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise CannotInstallError(f"npm failed with code {done.returncode}: {said[-2000:]}")
    # In this file npm notes the hash of the download that it has checked.
    lock = (folder / "package-lock.json").read_text()
    if f'"integrity": "sha512-{expected}"' not in lock:
        raise CannotInstallError(
            f"npm's {package}@{version} is not the content that the tests expect."
        )


def _platform() -> str:
    machine = platform.machine().lower()
    known = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64"}
    return f"{platform.system().lower()}-{known.get(machine, machine)}"


def _cli_folder(version: str) -> Path:
    return cache() / f"claude-{version}-{_platform()}"


def _finished(folder: Path) -> bool:
    return (folder / _FINISHED).exists()


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
