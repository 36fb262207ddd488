"""YAML as people mean it: YAML 1.2's few words for true, false and null, and no times or base-60 numbers.

PyYAML follows YAML 1.1, which reads the field `on` as true and the time `07:30` as 450.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

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
    # What JSON has. PyYAML's own types, such as `!!timestamp`, have no place in it.
    yaml_constructors = {
        tag: constructor
        for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.endswith((":str", ":seq", ":map", ":bool", ":null", ":float"))
    }

    def compose_mapping_node(self, anchor: dict[Any, yaml.Node]) -> yaml.MappingNode:
        """Refuse a key that is there twice, of which PyYAML takes the last in silence."""
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


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text.strip("\n") else None
    if "\x85" in text:
        # It ends a line in YAML 1.1, and in quotes alone it is an escape.
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def load(text: str) -> Any:
    """Raises ValueError, in one sentence with the line."""
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


def dump(value: Any) -> str:
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
