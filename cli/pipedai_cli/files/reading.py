"""Reads `pipedai.yaml` and its prompts into what plan and apply send."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipedai_cli.errors import wrong_usage
from pipedai_cli.files import yaml_text

NAME = "pipedai.yaml"
# The file's lists, in the order in which an export writes them, and the API's kinds.
KINDS = {
    "pools": "pool",
    "connections": "connection",
    "sources": "source",
    "triggers": "trigger",
    "budgets": "budget",
    "channels": "channel",
}
# Values of secrets come from variables of this prefix, so that a file can name no other variable of the machine.
SECRET_PREFIX = "PIPEDAI_SECRET_"  # noqa: S105 - it is the name of a variable
# What plan and apply take.
LARGEST = 8 * 1024 * 1024
MOST_RESOURCES = 500
# An alias of YAML stands for a whole value, so a small text can mean endless values.
_MOST_VALUES = 200_000
_LARGEST_PROMPT = 256 * 1024


class Files(NamedTuple):
    """What the files say. `secrets` has the values that the environment has of those that the files name."""

    managed_by: str
    resources: list[dict[str, Any]]
    secrets: dict[str, str]
    unset: list[str]

    def body(self, accept_origins: Sequence[str] = ()) -> dict[str, Any]:
        return {
            "managedBy": self.managed_by,
            "resources": self.resources,
            "secrets": self.secrets,
            "acceptOrigins": list(accept_origins),
        }


def read_files(path: Path) -> Files:
    """Read a file, or the `pipedai.yaml` of a folder. Raises Failure with one sentence on what is wrong."""
    file = path / NAME if path.is_dir() else path
    text = _text(file, LARGEST)
    try:
        document = yaml_text.load(text)
        names = sorted(set(_secret_names(document)))
    except ValueError as error:
        raise wrong_usage(f"{file}: {error}.") from None
    if not isinstance(document, dict):
        raise wrong_usage(f"{file} has to be a mapping with managedBy and {', '.join(KINDS)}.")
    if unknown := [str(name) for name in document if name not in {"managedBy", *KINDS}]:
        raise wrong_usage(f"{file}: {unknown[0]} is none of managedBy, {', '.join(KINDS)}.")
    managed_by = document.get("managedBy")
    if not isinstance(managed_by, str) or not managed_by:
        raise wrong_usage(f"{file} needs managedBy, a label such as the repository's name.")
    resources = [
        _resource(file, kind, key, fields)
        for many, kind in KINDS.items()
        for key, fields in _entries(file, document, many)
    ]
    if len(resources) > MOST_RESOURCES:
        raise wrong_usage(f"{file} has {len(resources)} resources; {MOST_RESOURCES} are the most.")
    values = {
        name: os.environ[SECRET_PREFIX + name]
        for name in names
        if SECRET_PREFIX + name in os.environ
    }
    return Files(managed_by, resources, values, [name for name in names if name not in values])


def _entries(file: Path, document: dict[str, Any], many: str) -> list[tuple[str, dict[str, Any]]]:
    entries = document.get(many) or {}
    if not isinstance(entries, dict):
        raise wrong_usage(f"{file}: {many} has to be a mapping of keys.")
    for key, fields in entries.items():
        if not isinstance(key, str) or not isinstance(fields, dict):
            raise wrong_usage(f"{file}: {many}.{key} has to be a mapping of fields.")
    return list(entries.items())


def _resource(file: Path, kind: str, key: str, fields: dict[str, Any]) -> dict[str, Any]:
    resource = {"kind": kind, "key": key, **fields}
    if len(resource) != len(fields) + 2:
        raise wrong_usage(f"{file}: {kind} {key} can't have a field named kind or key.")
    prompt_file = resource.pop("promptFile", None)
    if prompt_file is None:
        return resource
    if kind != "trigger" or not isinstance(prompt_file, str) or "prompt" in resource:
        raise wrong_usage(
            f"{file}: {kind} {key} can't have promptFile: a trigger has it in place of prompt."
        )
    return {**resource, "prompt": _prompt(file, prompt_file)}


def _prompt(file: Path, name: str) -> str:
    """Read a prompt. It has to be below the file's folder, so that a file can't send what else is on the machine."""
    folder = file.parent.resolve()
    path = (folder / name).resolve()
    if not path.is_relative_to(folder) or path.suffix != ".md":
        raise wrong_usage(f"{file}: promptFile {name} has to be a .md file below {file.parent}.")
    # The line break that ends the last line, as editors write it, is the file's and not the prompt's.
    return _text(path, _LARGEST_PROMPT).removesuffix("\n")


def _text(path: Path, most: int) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
        if len(content) > most:
            raise wrong_usage(f"{path} is larger than {most // 1024} KiB.")
        return content.decode()
    except FileNotFoundError:
        hint = " `pipedai export` writes one." if path.name == NAME else ""
        raise wrong_usage(f"There is no {path}.{hint}") from None
    except OSError as error:
        raise wrong_usage(f"{path} can't be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise wrong_usage(f"{path} is not UTF-8.") from None


def _secret_names(document: Any) -> list[str]:
    """Return the names in each `{ secret: NAME }`. Raises ValueError if the document means too many values, or has one
    that JSON has not.
    """
    names, rest, count = [], [document], 0
    while rest:
        value = rest.pop()
        count += 1
        if count > _MOST_VALUES:
            raise ValueError("it has too many values")
        if isinstance(value, dict):
            name = value.get("secret")
            if len(value) == 1 and isinstance(name, str):
                names.append(name)
            if odd := [key for key in value if not isinstance(key, str)]:
                raise ValueError(f"the name {odd[0]} needs quotes")
            rest.extend((*value, *value.values()))
        elif isinstance(value, list):
            rest.extend(value)
        elif isinstance(value, str):
            value.encode()
        elif isinstance(value, float) and not math.isfinite(value):
            raise ValueError("a number is too large")
    return names
