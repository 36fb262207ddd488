"""Executes the steps of the Dockerfile on copies of this machine, a copy for each stage, where no Docker is needed.

Of Docker it does what our Dockerfile uses, and refuses the rest. A copy of this machine stands for the base image.
"""

import io
import json
import re
import shlex
import shutil
import string
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from dockerfile_parse.parser import DockerfileParser

from deploy.tests.kept_packages import kept_packages
from pipedai.env import BASE_DIR
from testing.processes.spare_machine import Machine, machine

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass
class Stage:
    """A stage of the Dockerfile: its name, its base image and its steps, each an instruction and its value."""

    name: str
    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def value(self, instruction: str) -> str:
        """Returns the value of an instruction that the stage has once."""
        (found,) = (value for name, value in self.steps if name == instruction)
        return found


@dataclass
class Built:
    """A stage whose steps were executed on a machine: the settings with which its processes run."""

    machine: Machine
    directory: str = "/"
    user: str = "0:0"
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": _PATH})

    def command(self, *arguments: str) -> list[str]:
        """Returns the command that runs these arguments as the image's user, without any privilege."""
        uid, _, gid = self.user.partition(":")
        rights = ["--clear-groups", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
        return ["setpriv", f"--reuid={uid}", f"--regid={gid}", *rights, *arguments]


def stages(dockerfile: Path = BASE_DIR / "Dockerfile") -> dict[str, Stage]:
    """Reads the stages of a Dockerfile, by their names."""
    parser = DockerfileParser(fileobj=io.BytesIO(dockerfile.read_bytes()))
    arguments: dict[str, str] = {}
    found: list[Stage] = []
    for step in parser.structure:
        name, value = step["instruction"], step["value"]
        if name == "FROM":
            base, _, called = string.Template(value).substitute(arguments).partition(" AS ")
            found.append(Stage(called, base))
        elif name == "ARG" and not found:
            key, _, default = value.partition("=")
            arguments[key] = default
        elif name != "COMMENT":
            found[-1].steps.append((name, value))
    return {stage.name: stage for stage in found}


def build(target: str, folder: Path, stack: ExitStack) -> Built:
    """Executes the steps of a stage, and of the stages from which it copies. The machines live as long as the stack."""
    known, built = stages(), dict[str, Built]()

    def made(name: str) -> Built:
        if name not in built:
            (folder / name).mkdir(parents=True)
            built[name] = Built(stack.enter_context(machine(folder / name)))
            for step in known[name].steps:
                _execute(step, built[name], made)
        return built[name]

    return made(target)


def build_without_packages(name: str, folder: Path, stack: ExitStack) -> Built:
    """Executes the steps of a stage but for RUN, so that the programs are those which this machine has."""
    folder.mkdir()
    built = Built(stack.enter_context(machine(folder)))
    for step in stages()[name].steps:
        if step[0] != "RUN":
            _execute(step, built, lambda other: built)
    return built


def _execute(step: tuple[str, str], on: Built, made: Callable[[str], Built]) -> None:
    name, value = step
    if name == "RUN":
        with kept_packages(on.machine, on.directory) if value == "bin/setup" else nullcontext():
            on.machine.run(
                "sh", "-ec", value, network=True, directory=on.directory, environment=on.environment
            )
    elif name == "WORKDIR":
        on.directory = value
        on.machine.path(value).mkdir(parents=True, exist_ok=True)
    elif name == "COPY":
        _copy(shlex.split(value), on, made)
    elif name == "ENV":
        for pair in shlex.split(value):
            key, _, text = pair.partition("=")
            on.environment[key] = string.Template(text).substitute(on.environment)
    elif name == "USER":
        on.user = value
        # Docker takes HOME from /etc/passwd, where the Dockerfile gives its user this one.
        on.environment["HOME"] = "/nonexistent"
    elif name not in ("EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "CMD"):
        raise NotImplementedError(f"{name} {value}")


def _copy(arguments: list[str], on: Built, made: Callable[[str], Built]) -> None:
    if arguments[0].startswith("--from="):
        name, source, target = arguments[0].removeprefix("--from="), *arguments[1:]
        copied = made(name).machine.path(source)
        # shutil takes twice the CPU time.
        subprocess.run(["cp", "-a", f"{copied}/.", str(on.machine.path(target))], check=True)
        return
    *sources, target = arguments
    for path in context():
        for source in sources:
            if source == "." or path == PurePosixPath(source):
                kept = path if source == "." else PurePosixPath(path.name)
                place = on.machine.path(str(PurePosixPath(on.directory, target, kept)))
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(BASE_DIR / path, place)


def context(root: Path = BASE_DIR) -> Iterator[PurePosixPath]:
    """Yields the files that .dockerignore leaves in the build's context, relative to the root."""
    lines = (root / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    assert not any(line.startswith("!") for line in patterns)

    def walk(directory: Path) -> Iterator[PurePosixPath]:
        for path in sorted(directory.iterdir()):
            relative = PurePosixPath(path.relative_to(root))
            if is_ignored(relative, patterns):
                continue
            if path.is_dir() and not path.is_symlink():
                yield from walk(path)
            else:
                yield relative

    return walk(root)


def is_ignored(path: PurePosixPath, patterns: list[str]) -> bool:
    """Whether a pattern names this file or directory. A `**/` at its beginning stands for any directories, or none."""
    for pattern in patterns:
        if pattern.startswith("**/"):
            if fnmatch(path.name, pattern.removeprefix("**/")):
                return True
        elif len(path.parts) == pattern.count("/") + 1 and fnmatch(str(path), pattern):
            return True
    return False


def exec_form(value: str) -> list[str]:
    """Returns the words of the JSON form, after `CMD` in a health check. Raises ValueError for the shell's form."""
    found = re.search(r"\[.*\]$", value)
    if found is None:
        raise ValueError(value)
    words: list[str] = json.loads(found[0])
    return words
