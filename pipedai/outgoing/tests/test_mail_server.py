"""Mails reach a real SMTP server, and each of its answers means the right thing (SPEC §15)."""

import socket
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.core.exceptions import ImproperlyConfigured

from pipedai import env
from pipedai.outgoing import Mail, Result, mail_is_on, mail_server
from pipedai.outgoing.mail_server import check_server, deliver
from testing.processes.mail_receiver import MailReceiver, receiving_mail

MAIL = Mail("ada@example.com", "Grüße", "Hello, Ada.\n", "<p>Hello, Ada.</p>")
ID = "018f0000000070008000000000000001"


@pytest.fixture
def receiver(settings) -> Iterator[MailReceiver]:
    with receiving_mail() as mail_receiver:
        settings.EMAIL_URL = mail_receiver.url()
        settings.EMAIL_FROM = "PipedAI <noreply@pipedai.example>"
        yield mail_receiver


def test_a_mail_arrives_with_text_and_html_and_headers_that_never_change(receiver):
    answer = deliver(MAIL, message_id=ID)
    assert (answer.result, answer.status_code, answer.error) == (Result.TAKEN, 250, None)
    (mail,) = receiver.received
    assert (mail.sender, mail.recipients) == ("noreply@pipedai.example", ["ada@example.com"])
    assert mail.message["Subject"] == "Grüße"
    assert mail.message["From"] == "PipedAI <noreply@pipedai.example>"
    assert mail.message["To"] == "ada@example.com"
    assert mail.message["Message-ID"] == f"<{ID}@pipedai.example>"
    assert mail.message["Auto-Submitted"] == "auto-generated"
    assert (mail.part("plain").strip(), mail.part("html").strip()) == (MAIL.text.strip(), MAIL.html)


@pytest.mark.parametrize(
    ("said", "means"),
    [
        ("550 5.1.1 no such user", Result.REFUSED),
        ("554 5.7.1 go away", Result.REFUSED),
        ("450 4.2.0 greylisted", Result.AGAIN),
        ("452 4.3.1 too busy", Result.AGAIN),
        ("421 4.3.2 shutting down", Result.AWAY),
    ],
)
@pytest.mark.parametrize("when", ["answers", "data_answers"])
def test_4xx_is_tried_again_and_5xx_is_final(receiver, said, means, when):
    getattr(receiver, when).append(said)
    answer = deliver(MAIL, message_id=ID)
    assert (answer.result, answer.status_code) == (means, int(said[:3]))
    assert receiver.received == []
    assert deliver(MAIL, message_id=ID).result is Result.TAKEN


@pytest.mark.parametrize(
    ("behaviour", "words"), [("stall", "timed out"), ("drop", "connection lost")]
)
@pytest.mark.parametrize("when", ["answers", "data_answers"])
def test_a_server_that_stalls_or_drops_is_away_and_the_attempt_ends(
    receiver, behaviour, words, when
):
    getattr(receiver, when).append(behaviour)
    begun = time.monotonic()
    answer = deliver(MAIL, message_id=ID, timeout=1.0)
    assert time.monotonic() - begun < 10
    assert (answer.result, answer.status_code, answer.error) == (Result.AWAY, None, words)


@contextmanager
def dripping(scheme: str) -> Iterator[str]:
    """Runs a server that sends a byte now and then, and never ends its line."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def drip() -> None:
        connection, _ = listener.accept()
        with connection:
            while not over.wait(0.05):
                try:
                    connection.send(b"2")
                except OSError:
                    return

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    yield f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"
    over.set()
    thread.join(10)
    listener.close()


def test_a_server_that_drips_is_held_to_the_same_deadline(settings):
    with dripping("smtp") as settings.EMAIL_URL:
        begun = time.monotonic()
        answer = deliver(MAIL, message_id=ID, timeout=0.5)
        assert time.monotonic() - begun < 10
    assert (answer.result, answer.error) == (Result.AWAY, "timed out")


def test_a_server_that_takes_no_connection_is_away(settings):
    settings.EMAIL_URL = "smtp://127.0.0.1:1"
    answer = deliver(MAIL, message_id=ID)
    assert (answer.result, answer.error) == (Result.AWAY, "could not connect")
    assert check_server() == "could not connect"
    settings.EMAIL_URL = "smtp://nobody.invalid"
    assert deliver(MAIL, message_id=ID, timeout=5).result is Result.AWAY


@pytest.mark.parametrize("scheme", ["smtp+tls", "smtp+ssl"])
def test_without_tls_where_it_is_asked_for_nothing_is_sent(receiver, settings, scheme):
    settings.EMAIL_URL = receiver.url("ada:secretive-word@").replace("smtp", scheme, 1)
    answer = deliver(MAIL, message_id=ID, timeout=5)
    assert answer.result is Result.AWAY
    assert receiver.received == []


def test_the_password_is_given_and_a_refused_one_is_no_fault_of_the_mail(settings):
    with receiving_mail(password="s@fe word") as receiver:
        settings.EMAIL_URL = receiver.url("ada:s%40fe%20word@")
        assert deliver(MAIL, message_id=ID).result is Result.TAKEN
        assert check_server() is None
        settings.EMAIL_URL = receiver.url("ada:mistaken-word@")
        answer = deliver(MAIL, message_id=ID)
        assert (answer.result, answer.status_code) == (Result.AWAY, 535)
        assert answer.error == check_server() == "the mail server refuses our login"
    assert len(receiver.received) == 1


@pytest.mark.parametrize(
    "mail",
    [
        Mail("ada@example.com", "Hi\r\nBcc: eve@example.com", "", ""),
        Mail("ada@example.com\nBcc: eve@example.com", "Hi", "", ""),
        Mail("ada@example.com, eve@example.com", "Hi", "", ""),
        Mail("ada@example.com", "Hi", "", "", {"X-About": "a\nBcc: eve@example.com"}),
        Mail("", "Hi", "", ""),
    ],
    ids=["subject", "recipient", "two-recipients", "header", "nobody"],
)
def test_nothing_can_be_injected_into_headers(receiver, mail):
    assert deliver(mail, message_id=ID).result is Result.REFUSED
    assert receiver.received == []


def test_in_development_without_a_server_a_mail_is_a_file_that_the_log_names(
    settings, tmp_path, capfd
):
    settings.EMAIL_URL, settings.DATA_DIR = "", tmp_path
    assert deliver(MAIL, message_id=ID).result is Result.TAKEN
    (path,) = (tmp_path / "mail").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert b"Hello, Ada." in path.read_bytes()
    logged = "".join(capfd.readouterr())
    assert "mail.written" in logged
    assert str(path) in logged


@pytest.mark.parametrize(
    ("url", "production", "is_on"),
    [("", False, True), ("", True, False), ("smtp://a", False, True), ("smtp://a", True, True)],
)
def test_mail_is_off_in_production_without_a_server_alone(settings, url, production, is_on):
    settings.EMAIL_URL, settings.PRODUCTION = url, production
    assert mail_is_on() is is_on
    if not is_on:
        assert deliver(MAIL, message_id=ID).result is Result.AWAY


@pytest.mark.parametrize(
    ("url", "read"),
    [
        ("smtp://relay", ("relay", 25, "", "", False, False)),
        ("smtp+tls://u%40x:p%3Aw@a.example", ("a.example", 587, "u@x", "p:w", True, False)),
        ("smtp+ssl://u:p@[::1]", ("::1", 465, "u", "p", False, True)),
        ("smtp+ssl://a.example:2465", ("a.example", 2465, "", "", False, True)),
    ],
)
def test_the_url_says_where_and_how(monkeypatch, url, read):
    monkeypatch.setenv("EMAIL_URL", url)
    assert tuple(env.email_config(env.email_url("EMAIL_URL")).values()) == read


@pytest.mark.parametrize(
    "url", ["mail.example.com", "smtps://u:hidden@a", "smtp://", "smtp://a:x", "consolemail://"]
)
def test_any_other_url_is_refused_without_its_password(monkeypatch, url):
    monkeypatch.setenv("EMAIL_URL", url)
    with pytest.raises(ImproperlyConfigured, match=r"EMAIL_URL must be a URL such as") as refused:
        env.email_url("EMAIL_URL")
    assert "hidden" not in str(refused.value)


def test_neither_a_mail_nor_its_answer_shows_what_it_says():
    assert "Ada" not in repr(MAIL)
    assert "ada" not in repr(MAIL)


def test_an_attempt_takes_less_time_than_its_claim():
    from pipedai.outgoing import due

    assert mail_server.TIMEOUT_SECONDS < due.CLAIM_SECONDS - 10
