"""What each command prints and how it exits, with the service served over HTTP."""

import importlib
import json
import re
import sys
from pathlib import Path

import click
import pytest
from testing.processes.terminal import pipedai
from testing.world.cast import TEST_ACTOR

from pipedai.env import BASE_DIR
from pipedai_cli import main, output, session
from triggers.services import TRIGGERS

FILE = """
managedBy: acme/agents
pools:
  builders: {name: Builders}
"""
# Each read, and the path of the API whose answer `--json` prints; None where it is no single answer.
READS = {
    "whoami": "/whoami",
    "trigger list": None,
    "trigger show {trigger}": None,
    "trigger show 'Other report'": None,
    "run list --trigger {trigger} --status queued,running": None,
    "run show {queued}": "/runs/{queued}",
    "run logs {ended}": None,
    "run explain {queued}": "/runs/{queued}/explain",
    "worker list": None,
    "event list --source {source} --decision fired,filtered": None,
    "event list --source {source}": "/environments/{environment}/events?sourceId={source}",
    "event list": "/environments/{environment}/events",
    "approval list": None,
    "approval list --status expired,rejected": None,
    "attention": "/environments/{environment}/attention",
    "export --to new --force": "/environments/{environment}/export?managedBy=pipedai.yaml",
    "plan": None,
    "plan pipedai.yaml": None,
}
# What is done in this order, and the exit code with what it says on stdout, or on stderr if it fails.
CASES = [
    ("trigger pause {trigger}", 0, "is paused"),
    ("trigger run {trigger}", 4, "(trigger_disabled). `pipedai trigger resume`"),
    ("trigger resume {trigger}", 0, "is enabled"),
    ("trigger pause {trigger} --json", 0, '"enabled": false'),
    ("trigger resume {trigger} --json", 0, '"enabled": true'),
    ("trigger run {trigger} --json", 0, '"triggerId": "{trigger}"'),
    ("trigger run {trigger} --payload @payload.json", 0, "queued"),
    ("trigger run {trigger} --payload nonsense", 2, "no JSON"),
    ("trigger run {trigger} --payload @none.json", 2, "can't be read"),
    ("trigger show 'Ohter report'", 4, "There is Other report"),
    ("trigger show sales-report-for-europe-everymorning", 4, "There is Other report"),
    ("run rerun {ended}", 0, "queued"),
    ("run rerun {ended} --json", 0, '"rerunOfRunId": "{ended}"'),
    ("run rerun {queued}", 4, "(run_state)"),
    ("run cancel {queued}", 0, "canceled"),
    ("run cancel {running} --json", 0, '"cancelRequested": true'),
    ("run show {environment}", 4, "(not_found)"),
    ("run cancel ../environments/{environment}/export", 2, "stands for an id is none"),
    ("run show {queued}?x=", 2, "stands for an id is none"),
    ("run list --status asleep", 4, "status: "),
    ("run list --limit 0", 2, "--limit"),
    ("event replay {event}", 0, "decided anew as"),
    ("event replay {event} --json", 0, '"id": '),
    ("event list --source nobody", 4, "No source has"),
    ("approval list", 0, "send_mail"),
    ("approval open {approval}", 0, "/console/approvals/{approval}"),
    ("run show", 2, "Missing argument 'RUN'. `pipedai run show --help` shows how."),
    ("nonsense", 2, "No such command 'nonsense'. `pipedai --help` shows how."),
    ("whoami --nonsense", 2, "No such option"),
    ("apply", 2, "--yes"),
    ("apply --yes", 0, "Applied: 1 created, 0 updated, 0 deleted, 0 unchanged"),
    ("plan", 0, "No changes: the service is as the files say."),
    ("apply --yes --json", 0, '"action": "none"'),
    ("plan empty.yaml", 0, "- pool builders (only with --prune)"),
    ("apply empty.yaml --yes --prune", 0, "Applied: 0 created, 0 updated, 1 deleted, 0 unchanged"),
    ("apply wrong.yaml --yes", 4, "pool builders.name: This field is required"),
    ("plan none.yaml", 2, "There is no none.yaml"),
    ("open trigger {trigger}", 0, "/console/triggers/{trigger}"),
    ("open run", 2, "Say which run"),
    ("mcp --files none", 2, "none"),
]
# They answer with nothing of the API.
WITHOUT_JSON = {f"pipedai {name}" for name in ("login", "logout", "open", "approval open", "mcp")}


class Shell:
    """Runs one command line with a key of a role, and fills in ids."""

    def __init__(self, server, stage, home):
        self._url = server.url
        self._tokens: dict[str, str] = {}
        self.stage, self.home = stage, home
        rows = {name.removesuffix("_id"): id_ for name, id_ in stage.ids.items()}
        self.ids = {**rows, **stage.runs}

    def __call__(self, line, role="admin", **variables):
        if role not in self._tokens:
            self._tokens[role] = self.stage.cast.mint("pwk", role=role)
        words = [quoted or word for quoted, word in re.findall(r"'(.*?)'|(\S+)", line)]
        given = [word.format(**self.ids) for word in words]
        key = self._tokens[role]
        return pipedai(*given, home=self.home, url=self._url, key=key, **variables)


@pytest.fixture
def shell(server, committed_stage, tmp_path):
    trigger_id = committed_stage.ids["trigger_id"]
    TRIGGERS.update(trigger_id, values={"key": "morning"}, actor=TEST_ACTOR)
    committed_stage.cast.add_trigger(name="Other report")
    (tmp_path / "pipedai.yaml").write_text(FILE)
    (tmp_path / "empty.yaml").write_text("managedBy: acme/agents\n")
    (tmp_path / "wrong.yaml").write_text("managedBy: acme\npools: {builders: {}}\n")
    (tmp_path / "payload.json").write_text('{"ticket": 7}')
    return Shell(server, committed_stage, tmp_path)


def test_commands_print_what_the_api_says_and_exit_as_the_help_says(shell, subtests):
    """Reads come first, because they expect the rows that the other commands change."""
    for part in (
        _reads_print_text_and_with_json_what_the_api_says,
        _each_case_exits_as_the_help_says,
    ):
        with subtests.test(part.__name__):
            part(shell)


def _reads_print_text_and_with_json_what_the_api_says(shell):
    client = shell.stage.cast.key_client("admin")
    for line, path in READS.items():
        ended = shell(line)
        # That there is nothing to show is said on stderr.
        assert (ended.code, bool(ended.out)) == (0, not ended.err), (line, ended)
        assert ended.err.startswith("The") or not ended.err, line
        assert "\x1b" not in ended.out, line
        ended = shell(f"{line} --json")
        assert ended.code == 0, (line, ended)
        if line.startswith("run logs"):
            continue
        answer = json.loads(ended.out)
        if path and path != "/whoami":
            told = client.get("/api/v1" + path.format(**shell.ids)).json()
            told.pop("nextCursor", None)
            assert answer == told, line


def _each_case_exits_as_the_help_says(shell):
    for line, code, said in CASES:
        ended = shell(line)
        shown = ended.err if code else ended.out
        for name, id_ in shell.ids.items():
            said = said.replace(f"{{{name}}}", str(id_))
        assert (ended.code, said in shown) == (code, True), (line, ended)
        if code:
            assert ended.err.count("\n") == 1, line
        elif line.endswith("--json"):
            json.loads(ended.out)
    ended = shell("trigger run {trigger}", role="viewer")
    assert (ended.code, "(forbidden)" in ended.err) == (4, True)
    two = shell.stage.cast.add_trigger(name="Other report")
    ended = shell("trigger show 'Other report'")
    assert (ended.code, str(two) in ended.err) == (2, True)


def test_no_command_is_missing_and_each_that_answers_can_do_so_in_json():
    tried = [*(line for line in READS), *(line for line, _, _ in CASES)]
    in_json = [*READS, *(line for line in tried if line.endswith("--json"))]
    for path, command in _commands(main.cli, "pipedai"):
        begun = re.compile(rf"{path.removeprefix('pipedai ')}(?: |$)")
        if isinstance(command, click.Group):
            continue
        # test_following signs in and out.
        assert path in {"pipedai login", "pipedai logout"} or any(map(begun.match, tried)), path
        takes_it = any("--json" in option.opts for option in command.params)
        assert takes_it == any(map(begun.match, in_json)), path
        assert takes_it != (path in WITHOUT_JSON), path


def test_a_newcomer_gives_keys_to_what_there_is_and_goes_on_with_files(shell):
    shell.stage.cast.add_trigger(name="Other report", prompt="Two\nlines.\n")
    assert "without a key are left out" in shell("export --to repo").out
    ended = shell("export --to repo --force --assign-keys --managed-by acme/agents")
    assert ended.code == 0, ended
    text = (shell.home / "repo" / "pipedai.yaml").read_text()
    assert "  morning:" in text
    assert "  other-report:" in text
    assert "  other-report-2:" in text
    assert (shell.home / "repo/prompts/other-report-2.md").read_text() == "Two\nlines.\n\n"
    planned = json.loads(shell("plan repo --json").out)["changes"]
    assert {tuple(each["diff"]) for each in planned} == {("managedBy",)}
    assert shell("apply repo --yes").code == 0
    planned = json.loads(shell("plan repo --json").out)["changes"]
    assert {each["action"] for each in planned} == {"none"}


def test_a_secret_goes_to_a_new_origin_only_if_that_is_said(shell):
    (shell.home / "pipedai.yaml").write_text("""
managedBy: acme/agents
triggers:
  tickets:
    name: Tickets
    prompt: Look.
    mcpUrl: https://elsewhere.example/mcp
    mcpHeaders: { Authorization: { secret: TICKETS } }
""")
    secret = {"PIPEDAI_SECRET_TICKETS": "Bearer planted-by-a-file"}
    ended = shell("plan")
    assert "PIPEDAI_SECRET_TICKETS" in ended.out
    assert "accept this origin" in shell("plan", **secret).out
    assert "!" not in shell("plan --accept-origin https://elsewhere.example", **secret).out
    ended = shell("apply --yes", **secret)
    assert (ended.code, "--accept-origin ORIGIN" in ended.err) == (4, True)
    assert "https://elsewhere.example/mcp," in ended.err
    accepting = "apply --yes --accept-origin https://elsewhere.example"
    ended = shell(accepting, **secret)
    assert ended.code == 0, ended
    assert "planted" not in ended.out
    assert json.loads(shell("plan --json", **secret).out)["changes"][0]["action"] == "none"


def _commands(command, path):
    yield path, command
    for name, sub in getattr(command, "commands", {}).items():
        yield from _commands(sub, f"{path} {name}")


@pytest.mark.parametrize(("path", "command"), [*_commands(main.cli, "pipedai")])
def test_the_help_fits_on_a_screen_and_has_an_example(tmp_path, path, command):
    ended = pipedai(*path.split()[1:], "--help", home=tmp_path, COLUMNS="80")
    assert ended.code == 0
    lines = ended.out.splitlines()
    assert (len(lines) <= 24, max(map(len, lines)) <= 80) == (True, True), ended.out
    assert any(path in line for line in lines[1:])
    # A list of commands says of each what it does, uncut.
    assert "..." not in "".join(lines[1:])


def test_the_help_and_the_page_name_each_variable_that_is_read(tmp_path):
    package = Path(main.__file__).parent
    code = "".join(path.read_text() for path in package.rglob("*.py"))
    reads = r'(?:environ(?:\.get\(|\[)|envvar=|SECRET_PREFIX = )"(\w+)"'
    names = {*re.findall(reads, code), *("HTTPS_PROXY", "SSL_CERT_FILE")}
    assert {"PIPEDAI_URL", "PIPEDAI_KEY", "PIPEDAI_PROFILE", "NO_COLOR"} <= names
    shown = pipedai("--help", home=tmp_path).out
    page = (BASE_DIR / "docs/cli.md").read_text()
    for name in names:
        assert name in shown, name
        assert f"`{name}" in page, name


def test_without_its_library_mcp_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mcp", None)
    monkeypatch.delitem(sys.modules, "pipedai_cli.mcp_tools", raising=False)
    ended = pipedai("mcp", home=tmp_path)
    assert (ended.code, "install pipedai[mcp]" in ended.err) == (2, True)


def test_nobody_who_has_not_signed_in_gets_further(tmp_path):
    ended = pipedai("whoami", home=tmp_path)
    assert (ended.code, "`pipedai login --url URL`" in ended.err) == (2, True)
    ended = pipedai("login", home=tmp_path)
    assert (ended.code, "Say which service" in ended.err) == (2, True)
    ended = pipedai("whoami", home=tmp_path, key="pwk_x")
    assert (ended.code, "PIPEDAI_URL" in ended.err) == (2, True)


def test_a_narrow_terminal_shows_ids_whole_and_leaves_out_the_last_columns(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("NO_COLOR", "1")
    heads, row = ("ID", "STATUS", "TRIGGER", "MESSAGE"), ("i" * 36, "failed", "t" * 30, "m" * 30)
    for columns, shown in (
        ("20", [row[0]]),
        ("80", [row[0], "failed", "t" * 21 + "…", "m" * 9 + "…"]),
        ("200", [*row]),
    ):
        monkeypatch.setenv("COLUMNS", columns)
        output.Output().table(heads, [row], none="")
        line = capsys.readouterr().out.splitlines()[1]
        assert line.split() == shown, columns


def test_what_to_do_is_told_without_calls_of_the_api():
    told = {
        "Raise it with PATCH /budgets/:id, or wait.": "Raise it, or wait.",
        "Resume it with PATCH /workers/:id (disabled: false).": "Resume it.",
        "Register them again (POST /workers/register), or wait.": "Register them again, or wait.",
        "On its page, to which POST /connections/:id/authorize leads. Or not.": "On its page. Or not.",
        "GET /health tells whether one is alive.": "GET /health tells whether one is alive.",
    }
    assert [output.without_calls(each) for each in told] == [*told.values()]


def test_columns_are_aligned_also_below_wide_characters(capsys):
    output.Output().table(("NAME", "STATE"), [("日本語の名前", "ok"), ("x", "failed")], none="")
    wide, narrow = capsys.readouterr().out.splitlines()[1:]
    # Each of the six characters takes two columns.
    assert wide.index("ok") + 6 == narrow.index("failed")


def test_a_long_cell_is_cut_and_colours_are_for_terminals(capsys, monkeypatch):
    output.Output().table(("NAME",), [("x" * 500,)], none="")
    assert capsys.readouterr().out.splitlines()[1].rstrip() == "x" * 59 + "…"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    for plain, coloured in (("", True), ("1", False)):
        monkeypatch.setenv("NO_COLOR", plain)
        output.Output().line("x", style="green")
        assert ("\x1b[3" in capsys.readouterr().out) is coloured


def test_a_key_is_in_a_file_of_its_own_mode_or_in_the_keyring(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "keyring", None)
    profile = session.Profile(url="https://x.example", environment_id="e", key="pwk_planted-one")
    kept = tmp_path / "pipedai" / "keys.json"
    assert session.save_profile("default", profile) == str(kept)
    assert (kept.stat().st_mode & 0o777, kept.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert session.load_profile("default") == profile
    assert "planted" not in repr(profile)
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    fake = tmp_path / "fake" / "keyring" / "backends"
    fake.mkdir(parents=True)
    (fake.parent / "__init__.py").write_text(
        "kept = {}\n"
        "get_keyring = lambda: object()\n"
        "set_password = lambda service, name, key: kept.update({(service, name): key})\n"
        "get_password = lambda service, name: kept.get((service, name))\n"
        "delete_password = lambda service, name: kept.pop((service, name))\n"
    )
    (fake / "__init__.py").touch()
    (fake / "fail.py").write_text("class Keyring: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path / "fake"))
    assert session.save_profile("default", profile) == "the system's keyring"
    assert "planted" not in kept.read_text()
    assert session.load_profile("default") == profile
    session.remove_profile("default")
    assert session.load_profile("default") is None
    (fake.parent / "__init__.py").write_text("def get_keyring(): raise LookupError\n")
    _forget_keyring()
    assert session.save_profile("default", profile) == str(kept)
    assert session.load_profile("default") == profile
    session.remove_profile("default")
    _forget_keyring()


def _forget_keyring():
    importlib.invalidate_caches()
    for name in [name for name in sys.modules if name.startswith("keyring")]:
        del sys.modules[name]
