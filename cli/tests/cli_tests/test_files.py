"""`pipedai.yaml` and its prompts: what is read, what is refused, and that an export reads as it was."""

import random
import string
from typing import Any

import pytest
from testing.world.cases import cases

from pipedai_cli.api import Failure
from pipedai_cli.files import load_yaml, read_files, write_files

HEAD = "managedBy: acme\n"


def write(folder, text, **prompts):
    (folder / "pipedai.yaml").write_text(text)
    for name, prompt in prompts.items():
        (folder / f"{name}.md").write_text(prompt)
    return folder


@cases(
    ("text", "value"),
    [
        ("on: [1]", {"on": [1]}),
        ("at: 07:30", {"at": "07:30"}),
        ("at: 2026-11-29", {"at": "2026-11-29"}),
        ("no: yes", {"no": "yes"}),
        ("a: 010", {"a": 10}),
        ("a: 1.50", {"a": 1.5}),
        ("a: true\nb: ~\nc:", {"a": True, "b": None, "c": None}),
        ("a: &x {k: 1, l: 1}\nb: {<<: *x, k: 2}", {"a": {"k": 1, "l": 1}, "b": {"k": 2, "l": 1}}),
    ],
)
def test_yaml_means_what_people_mean(text, value):
    assert load_yaml(text) == value


def test_a_trigger_gets_its_prompt_and_the_secrets_that_it_names(tmp_path, monkeypatch):
    monkeypatch.setenv("PIPEDAI_SECRET_TOKEN", "s3cret")
    monkeypatch.setenv("HOME_TOKEN", "not this one")
    text = """
triggers:
  nightly:
    promptFile: nightly.md
    mcpHeaders: {Authorization: {secret: TOKEN}, X-Other: {secret: HOME_TOKEN}}
"""
    files = read_files(write(tmp_path, HEAD + text, nightly="Look.\n"))
    assert files.resources == [
        {
            "kind": "trigger",
            "key": "nightly",
            "prompt": "Look.",
            "mcpHeaders": {
                "Authorization": {"secret": "TOKEN"},
                "X-Other": {"secret": "HOME_TOKEN"},
            },
        }
    ]
    assert files.secrets == {"TOKEN": "s3cret"}
    assert files.unset == ["HOME_TOKEN"]


_BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("triggers: {}", "needs managedBy"),
        (HEAD + "trigers: {}", "trigers is none of"),
        (HEAD + "triggers: [1]", "has to be a mapping"),
        (HEAD + "triggers: {a: 1}", "triggers.a has to be a mapping"),
        (HEAD + "triggers: {a: {key: b}}", "can't have a field named"),
        (HEAD + "triggers: {a: {promptFile: ../x.md}}", "below"),
        (HEAD + "triggers: {a: {promptFile: /etc/passwd}}", "below"),
        (HEAD + "triggers: {a: {promptFile: gone.md}}", "There is no"),
        (HEAD + "pools: {a: {promptFile: p.md}}", "a trigger has it"),
        (HEAD + "triggers: {a: {}, a: {}}", "line 2: 'a' is there twice"),
        (HEAD + "triggers: {a: !!python/object:os.system {}}", "line 2"),
        (HEAD + "triggers: [", "line 2"),
        ("[" * 3000, "nested too deep"),
        (_BOMB, "too many values"),
        (HEAD + "pools: {a: {name: 1e999}}", "too large"),
        (HEAD + "pools: {a: {1: x}}", "the name 1 needs quotes"),
        (HEAD + 'pools: {a: {name: "\\ud800"}}', "surrogates"),
        (HEAD + "pools: {a: {name: !!timestamp 2026-11-29}}", "line 2"),
        (HEAD + "pools: {a: {name: !!bool x}}", "the type of its tag"),
        ("- 1", "has to be a mapping"),
        ("", "has to be a mapping"),
    ],
)
def test_one_sentence_says_what_is_wrong(tmp_path, text, said):
    with pytest.raises(Failure, match=said) as failure:
        read_files(write(tmp_path, text, p="x"))
    assert failure.value.exit_code == 2
    assert "\n" not in str(failure.value)


def test_merges_of_merges_mean_each_field_once():
    text = "a0: &a0 {k: 1}\n" + "".join(
        f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}], k{n}: 1}}\n" for n in range(1, 12)
    )
    assert len(load_yaml(text)["a11"]) == 12


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    (tmp_path / "outside.md").write_text("private")
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "p.md").symlink_to(tmp_path / "outside.md")
    with pytest.raises(Failure, match="below"):
        read_files(write(folder, HEAD + "triggers: {a: {promptFile: p.md}}"))


def test_what_is_written_reads_as_it_was(tmp_path):
    rng = random.Random(29)
    letters = string.printable + "äß→😀\x85\u2028on"
    numbers = ["1e3", "1E5", "1.5e3", "-.5", "0123e4", "1e400", "0x1F", "+1", "5."]
    for number in range(50):
        texts = ["".join(rng.choices(letters, k=rng.randrange(40))) for _ in range(3)]
        texts[number % 3] = rng.choice([texts[number % 3], *numbers])
        resources: list[dict[str, Any]] = [
            {
                "kind": "trigger",
                "key": f"k{number}",
                "name": texts[0],
                "prompt": texts[1] + rng.choice(["", "\n"]),
                "on": [
                    {
                        "triggerId": None,
                        "where": [
                            {
                                "path": texts[2],
                                "value": rng.choice([1, 0.5, "no", "07:30", None, True]),
                            }
                        ],
                    }
                ],
            },
            {"kind": "budget", "key": "b", "limitUsd": "1.50"},
        ]
        folder = tmp_path / str(number)
        write_files(folder, "acme", resources, force=False, schema_url="https://x.example/schema")
        again = {each["kind"]: each for each in read_files(folder).resources}
        assert again == {each["kind"]: each for each in resources}


@pytest.mark.parametrize("key", ["../../outside", "linked"])
def test_an_export_writes_nothing_outside_its_folder(tmp_path, key):
    folder = tmp_path / "repository"
    (folder / "prompts").mkdir(parents=True)
    (folder / "prompts" / "linked.md").symlink_to(tmp_path / "outside.md")
    trigger = {"kind": "trigger", "key": key, "prompt": "Two\nlines."}
    with pytest.raises(Failure, match="outside"):
        write_files(folder, "acme", [trigger], force=True, schema_url="https://x.example")
    assert not (tmp_path / "outside.md").exists()


def test_an_export_writes_over_nothing(tmp_path):
    write(tmp_path, HEAD)
    with pytest.raises(Failure, match="--force"):
        write_files(tmp_path, "acme", [], force=False, schema_url="https://x.example")
    assert (tmp_path / "pipedai.yaml").read_text() == HEAD


def test_the_longest_prompt_of_a_trigger_is_read_from_the_file_that_an_export_writes(tmp_path):
    trigger = {"kind": "trigger", "key": "k", "prompt": "x" * 256 * 1024}
    write_files(tmp_path, "acme", [trigger], force=False, schema_url="https://x.example")
    assert read_files(tmp_path).resources == [trigger]
