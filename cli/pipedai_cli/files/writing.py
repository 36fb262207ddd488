"""Writes the resources of an export as `pipedai.yaml` and prompts beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipedai_cli.errors import wrong_usage
from pipedai_cli.files import yaml_text
from pipedai_cli.files.reading import KINDS, NAME

# Longer prompts, or those of several lines, get a file of their own.
_SHORT_PROMPT = 80


def write_files(
    folder: Path, managed_by: str, resources: list[dict[str, Any]], *, force: bool, schema_url: str
) -> list[Path]:
    """Write an export, and return the files. Raises Failure if one is there already, unless `force`, or would lie
    outside the folder, as by a link or by a key that is a path.
    """
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
    texts = {folder / NAME: head + yaml_text.dump(document), **texts}
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
