"""Every log record goes through one chain, and becomes one structured and redacted line."""

import json
import logging
import sys
import warnings
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from pipedai import logs
from pipedai.ids import current_request_id, new_id

TOKEN = "pwk_" + "0aZ" * 16 + "9"
SECRET = "hunter2-hunter2"


@pytest.fixture(autouse=True)
def _logging_as_it_was():
    root = logging.getLogger()
    level = root.level
    yield
    from django.conf import settings

    logs.configure(form=settings.LOG_FORMAT, level=settings.LOG_LEVEL)
    root.setLevel(level)


@pytest.fixture
def lines(capsys):
    """Returns a function that returns the JSON lines written since its last call."""
    logs.configure(form="json", level="INFO")

    def read() -> list[dict]:
        out, err = capsys.readouterr()
        assert err == ""
        return [json.loads(line) for line in out.splitlines()]

    return read


def test_a_line_is_one_json_object_with_time_level_and_logger(lines):
    logs.get_logger("a.b").info("run claimed", run=7, worker="w")
    (line,) = lines()
    assert line.pop("time").endswith("Z")
    assert line == {
        "event": "run claimed",
        "logger": "a.b",
        "level": "info",
        "run": 7,
        "worker": "w",
    }


def test_the_standard_library_s_lines_look_the_same(lines):
    logging.getLogger("django.security").warning("Invalid HTTP_HOST header: %r", "evil")
    (line,) = lines()
    assert line.pop("time").endswith("Z")
    assert line == {
        "event": "Invalid HTTP_HOST header: 'evil'",
        "logger": "django.security",
        "level": "warning",
    }


def test_a_host_that_is_not_ours_is_no_error_of_ours(lines, client):
    assert client.get("/api/v1/health/live", HTTP_HOST="evil.example").status_code == 400
    assert lines() == []


@pytest.mark.django_db
def test_nor_are_too_many_fields(lines, client):
    assert client.get(f"/console/sign-in?{'a&' * 2000}").status_code == 400
    assert lines() == []


def test_the_request_id_is_in_every_line(lines):
    token = current_request_id.set("r-1")
    logs.get_logger("a").info("ours")
    logging.getLogger("b").info("theirs")
    current_request_id.reset(token)
    logs.get_logger("a").info("none")
    assert [line.get("request_id") for line in lines()] == ["r-1", "r-1", None]


def test_no_planted_secret_reaches_a_line(lines):
    log = logs.get_logger("a")
    said = f"the token is {TOKEN}"
    log.info(said, token=TOKEN, note=TOKEN, nested={"x": [TOKEN]})
    log.info("headers", headers={"Authorization": f"Basic {SECRET}", "Cookie": SECRET})
    log.info("sealed", mcpHeaders={"x": SECRET}, webhook_secret=SECRET, password=SECRET)
    log.info("positional %s", TOKEN)
    logging.getLogger("b").info("%s and %r", TOKEN, {"password": SECRET})
    logging.getLogger("b").info({"password": SECRET})
    log.info("odd key", **{TOKEN: 1})
    try:
        raise ValueError(f"Authorization: Basic {SECRET}") from KeyError(TOKEN)
    except ValueError:
        log.exception("crashed")
        logging.getLogger("b").exception("crashed")
    log.info("stack", stack_info=True, note=f"postgres://a:{SECRET}@h/d")
    written = lines()
    assert len(written) == 10
    assert TOKEN[4:] not in json.dumps(written)
    assert SECRET not in json.dumps(written)


def test_a_traceback_is_kept_in_its_line(lines):
    try:
        raise ValueError("told you")
    except ValueError:
        logs.get_logger("a").exception("crashed")
    (line,) = lines()
    assert line["level"] == "error"
    assert line["exception"].startswith("Traceback (most recent call last):\n")
    assert line["exception"].endswith("ValueError: told you")


@pytest.mark.parametrize("form", ["json", "text"])
def test_nobody_can_forge_a_line(form, capsys):
    logs.configure(form=form, level="INFO")
    forged = "x\n2026-11-24T00:00:00Z [info] user logged in\r\x1b[2K"
    logs.get_logger("a").info(forged, note=forged, **{forged: forged})
    try:
        raise ValueError(forged)
    except ValueError:
        logs.get_logger("a").exception("crashed")
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\r" not in out
    assert not [line for line in out.splitlines() if line.startswith("2026-11-24T00")]


def test_text_is_for_people(capsys):
    logs.configure(form="text", level="INFO")
    logs.get_logger("a").info("run claimed", run=7)
    out = capsys.readouterr().out
    assert "run claimed" in out
    assert "run=7" in out
    assert out.count("\n") == 1


def test_lines_below_the_level_are_not_written(lines):
    logs.configure(form="json", level="WARNING")
    logs.get_logger("a").info("quiet")
    logging.getLogger("b").info("quiet")
    logs.get_logger("a").warning("loud")
    assert [line["event"] for line in lines()] == ["loud"]


def test_libraries_that_log_requests_or_statements_are_quiet_at_any_level(lines):
    logs.configure(form="json", level="DEBUG")
    logging.getLogger("httpx").info("HTTP Request: POST https://example.com/?token=x")
    logging.getLogger("django.db.backends").debug("(0.001) SELECT 1; args=('x',)")
    logging.getLogger("django.request").warning("Not Found: /")
    assert lines() == []


def test_configuring_again_does_not_double_the_lines(lines):
    logs.configure(form="json", level="INFO")
    logs.configure(form="json", level="INFO")
    logs.get_logger("a").info("once")
    assert len(lines()) == 1


def test_configuring_again_counts_for_loggers_in_use_too(lines):
    in_use = logs.get_logger("a")
    in_use.info("first")
    logs.configure(form="json", level="INFO")
    with capture_logs() as captured:
        in_use.info("second")
    assert [line["event"] for line in captured] == ["second"]


def test_a_value_that_json_does_not_know_is_written_as_text(lines):
    logs.get_logger("a").info("odd", where=sys, number=float("nan"), half="\ud800")
    (line,) = lines()
    assert line["number"] == "nan"
    assert line["half"] == "\\ud800"


def test_a_warning_goes_to_the_log(lines):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn(f"old: {TOKEN}", stacklevel=1)
    (line,) = lines()
    assert line["logger"] == "py.warnings"
    assert TOKEN[4:] not in line["event"]


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "beside-another-handler"])
def test_the_short_way_writes_the_same_line(lines, monkeypatch, alone):
    handlers = logging.root.handlers
    ours = [handler for handler in handlers if isinstance(handler, logs._StdoutHandler)]
    monkeypatch.setattr(logging.root, "handlers", ours if alone else [*ours, logging.NullHandler()])
    token = current_request_id.set("r-1")
    said = {"path": f"/x/{TOKEN}", "status": 200, "password": SECRET, "id": new_id(), "t": 1.5}
    logs.get_logger("a").info("request", **said)
    logs.log_line("a", logging.INFO, "request", said)
    logs.get_logger("a").error("request", **said)
    logs.log_line("a", logging.ERROR, "request", said)
    logs.log_line("a", logging.DEBUG, "request", said)
    current_request_id.reset(token)
    written = [{**line, "time": len(line["time"])} for line in lines()]
    assert len(written) == 4
    assert written[0] == written[1] != written[2] == written[3]
    assert TOKEN[4:] not in json.dumps(written)


def test_a_line_that_can_not_be_written_fails_no_request(lines, monkeypatch, capsys):
    """As on a full disk. The error is told on stderr, without the line."""
    ours = [each for each in logging.root.handlers if isinstance(each, logs._StdoutHandler)]
    monkeypatch.setattr(logging.root, "handlers", ours)
    path = f"/{new_id()}"
    with Path("/dev/full").open("w") as full, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", full)
        logs.log_line("a", logging.INFO, "request", {"path": path})
        patch.undo()
        with pytest.raises(OSError, match="No space left"):
            full.close()
    told = capsys.readouterr().err
    assert "No space left on device" in told
    assert path not in told
