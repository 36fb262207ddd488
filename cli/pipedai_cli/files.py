"""Reads `pipedai.yaml` and its prompts into what plan and apply send, and writes an export in the same form. YAML is
read as people mean it, by YAML 1.2: PyYAML follows YAML 1.1, which reads the field `on` as true and the time `07:30`
as 450.
"""

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from pipedai_cli.api import wrong_usage

# The types of YAML 1.2's core schema (https://yaml.org/spec/1.2.2/#103-core-schema): their pattern, and the characters
# with which they may begin, where an empty string stands for no text at all.
_TYPES = {
    "bool": (r"true|True|TRUE|false|False|FALSE", [*"tTfF"]),
    "null": (r"~|null|Null|NULL|", [*"~nN", ""]),
    "int": (r"[-+]?[0-9]+", [*"-+0123456789"]),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?",
        [*"-+.0123456789"],
    ),
    "merge": (r"<<", ["<"]),
}


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    # Only the types that JSON has. PyYAML's own types, such as `!!timestamp`, have no place in it.
    yaml_constructors = {
        tag: constructor
        for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.endswith((":str", ":seq", ":map", ":bool", ":null", ":float"))
    }

    def compose_mapping_node(self, anchor: dict[Any, yaml.Node]) -> yaml.MappingNode:
        """Refuse a repeated key, because PyYAML would silently take the last one."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                problem = f"{key.value!r} is there twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            if isinstance(key, yaml.ScalarNode):
                seen.add(key.value)
        return node


class _Dumper(yaml.SafeDumper):
    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """Indent lists below their name, as most formatters do."""
        return super().increase_indent(flow, False)


for _type, (_pattern, _first) in _TYPES.items():
    # The dumper quotes a text that would be read as one of these.
    for _either in (_Loader, _Dumper):
        _either.add_implicit_resolver(
            f"tag:yaml.org,2002:{_type}", re.compile(rf"^(?:{_pattern})$"), _first
        )


def _int(loader: _Loader, node: yaml.ScalarNode) -> int:
    """Read a number as decimal; PyYAML's own reads one with a leading 0 as octal."""
    return int(loader.construct_scalar(node))


_Loader.add_constructor("tag:yaml.org,2002:int", _int)


def _block_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text.strip("\n") else None
    if "\x85" in text:
        # YAML 1.1 takes this character for a line end. Only text in double quotes has it as an escape.
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _block_text)


def load_yaml(text: str) -> Any:
    """Parse YAML. Raises ValueError, in one sentence with the line."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - it is a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}: " if mark else ""
        raise ValueError(f"{where}{error.problem}") from None
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except LookupError:
        raise ValueError("a value is not of the type of its tag") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(str(error).splitlines()[0]) from None


def dump_yaml(value: Any) -> str:
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


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
# Values of secrets come from variables with this prefix, so that a file can't name another variable of the machine.
SECRET_PREFIX = "PIPEDAI_SECRET_"  # noqa: S105 - it is the name of a variable
# The largest request, and the most resources, that plan and apply take.
LARGEST = 8 * 1024 * 1024
MOST_RESOURCES = 500
# An alias of YAML stands for a whole value, so a small text can mean endless values.
_MOST_VALUES = 200_000
# The longest prompt of a trigger has 256 KiB. The line break that ends its file comes on top.
_LARGEST_PROMPT_FILE = 256 * 1024 + 1


class Files(NamedTuple):
    """What the files say. `secrets` has the values that the environment has for the secrets in the files."""

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
        document = load_yaml(text)
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
    return _text(path, _LARGEST_PROMPT_FILE).removesuffix("\n")


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
    """Return the names in each `{ secret: NAME }`. Raises ValueError for too many values, or no JSON."""
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


# Longer prompts, or those of several lines, get a file of their own.
_SHORT_PROMPT = 80


def write_files(
    folder: Path, managed_by: str, resources: list[dict[str, Any]], *, force: bool, schema_url: str
) -> list[Path]:
    """Write an export, and return its files. Raises Failure if one is outside `folder`, or exists (without `force`)."""
    document: dict[str, Any] = {"managedBy": managed_by}
    texts: dict[Path, str] = {}
    for many, kind in KINDS.items():
        entries = {}
        for resource in resources:
            if resource["kind"] == kind:
                fields = {
                    name: value for name, value in resource.items() if name not in {"kind", "key"}
                }
                entries[resource["key"]] = _with_prompt_file(folder, resource["key"], fields, texts)
        if entries:
            document[many] = entries
    head = f"# yaml-language-server: $schema={schema_url}\n"
    texts = {folder / NAME: head + dump_yaml(document), **texts}
    if not force and (there := next((path for path in texts if path.exists()), None)):
        raise wrong_usage(f"{there} is there already. --force writes over it.")
    if out := next(
        (path for path in texts if not path.resolve().is_relative_to(folder.resolve())), None
    ):
        raise wrong_usage(f"{out} would lie outside {folder}.")
    try:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            # Line ends stay as they are, also on Windows.
            path.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise wrong_usage(f"{folder} can't be written: {error.strerror}.") from None
    return list(texts)


def _with_prompt_file(
    folder: Path, key: str, fields: dict[str, Any], texts: dict[Path, str]
) -> dict[str, Any]:
    prompt = fields.get("prompt")
    if not isinstance(prompt, str) or ("\n" not in prompt and len(prompt) <= _SHORT_PROMPT):
        return fields
    name = f"prompts/{key}.md"
    texts[folder / name] = f"{prompt}\n"
    return {
        ("promptFile" if field == "prompt" else field): (name if field == "prompt" else value)
        for field, value in fields.items()
    }
