"""The repository of docs/files.md, with its workflow, against a served API; and the schema that editors use."""

import json
import re

import httpx
import jsonschema
import pytest
import yaml
from testing.processes.terminal import pipedai

from pipedai.env import BASE_DIR
from pipedai_cli.files import load_yaml
from workspaces.files.file_schema import NAME, file_schema

TEXT = (BASE_DIR / "docs" / "files.md").read_text()
BLOCKS = dict(re.findall(r"^`(\S+)`:\n\n```\w+\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL))
WORKFLOW = BLOCKS[".github/workflows/pipedai.yml"]


@pytest.fixture
def repository(tmp_path):
    for name, text in BLOCKS.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def commands_of(job):
    """The lines of a job of the workflow that run the program."""
    steps = yaml.safe_load(WORKFLOW)["jobs"][job]["steps"]
    return [step["run"].split() for step in steps if step.get("run", "").startswith("pipedai ")]


def test_it_is_planned_by_a_viewer_and_applied_by_an_admin(server, committed_cast, repository):
    def run(words, role, **variables):
        assert words[0] == "pipedai"
        key = committed_cast.mint("pwk", role=role)
        return pipedai(*words[1:], home=repository, url=server.url, key=key, **variables)

    (plan,), (apply,) = commands_of("plan"), commands_of("apply")
    planned = run(plan, "viewer")
    assert "+ trigger morning-report" in planned.out
    assert "next due:" in planned.out
    assert "Plan: 5 to create, 0 to update, 0 to delete, 0 unchanged." in planned.out
    secret = {"PIPEDAI_SECRET_ISSUES": "Bearer planted-for-the-template"}
    refused = run(apply, "admin", **secret)
    assert (refused.code, "https://issues.example.com" in refused.err) == (4, True)
    applied = run([*apply, "--accept-origin", "https://issues.example.com"], "admin", **secret)
    assert "Applied: 5 created" in applied.out, applied

    prompt = repository / "prompts" / "morning-report.md"
    before = prompt.read_text()
    prompt.write_text(before.replace("last day", "last week"))
    changed = run(plan, "viewer")
    assert "-Summarize the issues of the last day." in changed.out
    assert "+Summarize the issues of the last week." in changed.out
    assert "Applied: 0 created, 1 updated" in run(apply, "admin", **secret).out
    prompt.write_text(before)
    assert "Applied: 0 created, 1 updated" in run(apply, "admin").out
    assert "No changes" in run(plan, "viewer").out

    export = ["pipedai", "export", "--managed-by", "acme/agents", "--to", "exported"]
    assert run(export, "viewer").code == 0
    both = [
        load_yaml((repository / f).read_text()) for f in ("pipedai.yaml", "exported/pipedai.yaml")
    ]
    assert both[0].keys() == both[1].keys()
    assert [list(each["triggers"]) for each in both] == [["morning-report", "triage"]] * 2
    assert run(["pipedai", "plan", "exported"], "viewer").out.endswith("as the files say.\n")

    served = httpx.get(f"{server.url}/downloads/{NAME}")
    assert (served.status_code, served.content) == (200, file_schema())


def test_the_schema_takes_it_and_finds_what_is_wrong():
    schema = json.loads(file_schema())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    template = BLOCKS["pipedai.yaml"]
    assert list(validator.iter_errors(load_yaml(template))) == []
    wrong = [
        ("managedBy: acme/agents", "managedBy: 7"),
        ("pools:", "pool:"),
        ("  build-machines:\n    name", "  Build:\n    name"),
        ("pool: build-machines", "poolId: build-machines"),
        ("overlapPolicy: skip", "overlapPolicy: never"),
        ("promptFile: prompts/morning-report.md", "promptFile: prompts/morning-report.txt"),
        ("prompt: Label", "promptFile: a.md\n    prompt: Label"),
        ("{ secret: ISSUES }", "{ secret: [ISSUES] }"),
        ("    period: month\n", ""),
    ]
    for right, instead in wrong:
        text = template.replace(right, instead, 1)
        assert text != template, right
        assert list(validator.iter_errors(load_yaml(text))), instead
