"""Mails reach a real SMTP server, and each of its answers means the right thing."""

import errno
import socket
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.mail import DNS_NAME, EmailMultiAlternatives

from pipedai import env
from pipedai.checks.probes import mail_server_answers
from pipedai.outgoing import mails
from pipedai.outgoing.mails import BoundedBackend, Mail, check_server, compose, deliver, mail_is_on
from pipedai.outgoing.posts import Result
from testing.processes.certificate import self_signed
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


@pytest.mark.parametrize("said", ["hello", "-12 no"])
@pytest.mark.parametrize("when", ["answers", "data_answers"])
def test_a_server_that_answers_without_a_code_is_told_without_one(receiver, said, when):
    getattr(receiver, when).append(said)
    answer = deliver(MAIL, message_id=ID)
    assert (answer.result, answer.status_code) == (Result.AGAIN, None)
    assert answer.error == "the mail server's answer has no code"


@pytest.mark.parametrize(
    ("behaviour", "means", "words"),
    [
        ("stall", Result.AGAIN, "the mail server did not answer about this mail in time"),
        ("drop", Result.AWAY, "connection lost"),
    ],
)
@pytest.mark.parametrize("when", ["answers", "data_answers"])
def test_a_server_that_stalls_over_a_mail_is_not_away_and_one_that_drops_is(
    receiver, behaviour, means, words, when
):
    getattr(receiver, when).append(behaviour)
    begun = time.monotonic()
    answer = deliver(MAIL, message_id=ID, timeout=1.0)
    assert time.monotonic() - begun < 10
    assert (answer.result, answer.status_code, answer.error) == (means, None, words)
    assert (words in mails.AWAY_ERRORS) == (means is Result.AWAY)


@contextmanager
def dripping(
    scheme: str, begin: bytes, more: bytes = b"2", pause: float = 0.05, answer_to: bytes = b""
) -> Iterator[str]:
    """Runs a server that sends `begin`, and then `more` again and again, and never ends its answer or record of TLS. If
    `answer_to` is given, it answers commands with 250 until this command comes.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def drip() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.send(begin)
            while answer_to and (line := connection.recv(4096)) and answer_to not in line:
                connection.send(b"250 OK\r\n")
            while not over.wait(pause):
                try:
                    connection.sendall(more)
                except OSError:
                    return

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    yield f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"
    over.set()
    thread.join(10)
    listener.close()


@pytest.mark.parametrize(
    ("scheme", "begin"), [("smtp", b"220"), ("smtp+ssl", b"\x16\x03\x03\x40\x00\x02\0\x3f\xfc")]
)
def test_a_server_that_drips_is_held_to_the_same_deadline(settings, scheme, begin):
    with dripping(scheme, begin) as settings.EMAIL_URL:
        begun = time.monotonic()
        answer = deliver(MAIL, message_id=ID, timeout=0.5)
        assert time.monotonic() - begun < 10
    assert (answer.result, answer.error) == (Result.AWAY, "timed out")


@pytest.mark.parametrize("answer_to", [b"", b"mail FROM", b"rcpt TO", b"quit"])
def test_a_server_that_never_ends_an_answer_is_left_after_some_kilobytes(
    settings, answer_to, monkeypatch
):
    """With quit it has refused the mail before."""
    begin = b"220-" if not answer_to else b"220 hi\r\n"
    kept: list[int] = []
    hear = BoundedBackend.hear

    def count(self: BoundedBackend, line: bytes) -> None:
        kept.append(len(line))
        hear(self, line)

    monkeypatch.setattr(BoundedBackend, "hear", count)
    flood = dripping("smtp", begin, more=b"250-and\r\n" * 1_000, pause=0, answer_to=answer_to)
    with flood as settings.EMAIL_URL:
        answer = deliver(MAIL, message_id=ID)
    assert sum(kept) < 100_000
    if answer_to == b"quit":  # The answer to DATA was 250, and not 354.
        assert (answer.result, answer.status_code) == (Result.AGAIN, 250)
    else:
        assert (answer.result, answer.error) == (Result.AWAY, "the mail server says too much")


def test_so_is_the_look_up_of_our_own_name(settings, monkeypatch, receiver):
    over = threading.Event()
    monkeypatch.delattr(DNS_NAME, "_fqdn", raising=False)
    monkeypatch.setattr(socket, "getfqdn", lambda: over.wait(60) and "here.example")
    answer = deliver(MAIL, message_id=ID, timeout=0.3)
    assert (answer.result, answer.error, answer.duration_ms < 10_000) == (
        Result.AWAY,
        "timed out",
        True,
    )
    over.set()
    assert deliver(MAIL, message_id=ID).result is Result.TAKEN


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


def test_the_password_is_given_and_a_refused_one_is_no_fault_of_the_mail(settings, capfd):
    with receiving_mail(password="s@fe word") as receiver:
        settings.EMAIL_URL = receiver.url("ada:s%40fe%20word@")
        assert deliver(MAIL, message_id=ID).result is Result.TAKEN
        assert check_server() is None
        settings.EMAIL_URL = receiver.url("ada:mistaken-word@")
        answer = deliver(MAIL, message_id=ID)
        assert (answer.result, answer.status_code) == (Result.AWAY, 535)
        assert answer.error == check_server() == "the mail server refuses our login"
    said = "".join(capfd.readouterr())
    assert "word" not in f"{said} {answer!r} {mail_server_answers()!r}"
    assert len(receiver.received) == 1


@pytest.mark.parametrize("login", ["ada:secr%C3%A9tive@", "ad%C3%A4:word@"])
def test_a_login_that_cannot_be_sent_is_no_fault_of_the_mail(settings, login):
    with receiving_mail(password="x") as receiver:
        settings.EMAIL_URL = receiver.url(login)
        answer = deliver(MAIL, message_id=ID)
    assert (answer.result, answer.error) == (
        Result.AWAY,
        "the host or login in EMAIL_URL can't be used",
    )
    settings.EMAIL_URL = "smtp://mail..example.com"
    assert deliver(MAIL, message_id=ID).result is Result.AWAY


@pytest.mark.parametrize("tls", ["starttls", "at-once"])
def test_mails_and_password_go_through_tls_to_a_server_that_a_known_authority_vouches_for(
    settings, monkeypatch, tmp_path, tls
):
    scheme = {"starttls": "smtp+tls", "at-once": "smtp+ssl"}[tls]
    certificate = self_signed(tmp_path, "127.0.0.1")
    with receiving_mail(password="word", tls=tls, certificate=certificate) as receiver:
        settings.EMAIL_URL = receiver.url("ada:word@", scheme)
        answer = deliver(MAIL, message_id=ID)
        assert (answer.result, answer.error) == (Result.AWAY, "TLS failed")
        # OpenSSL reads this variable, so operators with an authority of their own can name it.
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert deliver(MAIL, message_id=ID).result is Result.TAKEN
        settings.EMAIL_URL = settings.EMAIL_URL.replace("127.0.0.1", "localhost")
        assert deliver(MAIL, message_id=ID).error == "TLS failed"
    assert receiver.encrypted == [True]


@pytest.mark.parametrize(
    "address",
    [
        "Eve <eve@example.com>",
        "<eve@example.com>",
        "a@example.com@example.com",
        "a@@example.com",
        "jürgen@example.com",
        "\u202ea@example.com",
        "a@example.com\0",
        "a@example.com SIZE=3",
        '"a\x0bb"@example.com',
        "undisclosed:;",
        "a@[127.0.0.1]",
        "a@" + "x" * 64 + ".example",
        "a" * 309 + "@example.com",
        "@example.com",
        "a@",
        "a",
        " a@example.com",
    ],
)
def test_a_mail_goes_to_one_bare_address_or_nowhere(receiver, address):
    answer = deliver(Mail(address, "Hi", "", ""), message_id=ID)
    assert (answer.result, answer.status_code) == (Result.REFUSED, None)
    assert receiver.received == []


@pytest.mark.parametrize(
    ("address", "reached"),
    [
        ("a@straße.example", "a@xn--strae-oqa.example"),
        ("a@bücher.example", "a@xn--bcher-kva.example"),
        ('"a\\"b@c"@example.com', '"a\\"b@c"@example.com'),
        ("a+b'c@example.com", "a+b'c@example.com"),
    ],
)
def test_a_mail_reaches_exactly_its_address(receiver, settings, address, reached):
    settings.EMAIL_FROM = "PipedAI <noreply@bücher.example>"
    assert deliver(Mail(address, "Hi", "", ""), message_id=ID).result is Result.TAKEN
    (mail,) = receiver.received
    assert mail.recipients == [reached]
    assert mail.message["Message-ID"] == f"<{ID}@xn--bcher-kva.example>"


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


@pytest.mark.parametrize(
    "name",
    [
        "=?utf-8?q?Your_account_is_locked:_https://evil.example?=",
        "=?utf-8?b?WW91ciBhY2NvdW50IGlzIGxvY2tlZA==?=",
        "=\u200b?utf-8?q?evil?=",
        "\u202e=\u2066?utf-8?q?evil?=\u2069",
        "ä =?utf-8?q?evil?= " + "long words " * 20,
        "x" * 60 + "=?utf-8?q?evil?=",
    ],
)
def test_a_name_of_others_is_shown_as_it_is_and_nothing_in_it_is_decoded(receiver, name):
    mail = compose(
        "accounts/reset", to="ada@example.com", subject="For {name}", values={"name": name}
    )
    assert deliver(mail, message_id=ID).result is Result.TAKEN
    shown = receiver.received[0].message["Subject"]
    assert "=[?]utf-8?" in shown
    assert "account is locked" not in shown
    raw = receiver.received[0].raw.partition(b"Message-ID")[0]
    assert b"=?utf-8?q?evil" not in raw
    assert b"\xe2" not in raw


@pytest.mark.parametrize(
    "mail",
    [
        Mail("=?utf-8?q?evil?=@example.com", "Hi", "", ""),
        Mail("ada@example.com", "Hi", "", "", {"X-About": "=?utf-8?q?evil?="}),
    ],
)
def test_no_encoded_word_is_in_an_address_or_another_header(receiver, mail):
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


def test_a_file_that_cannot_be_written_leaves_nothing_and_the_mail_waits(
    settings, tmp_path, monkeypatch, capfd
):
    settings.EMAIL_URL, settings.DATA_DIR = "", tmp_path

    def fail(*_: Any) -> bytes:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(EmailMultiAlternatives, "message", lambda _: SimpleNamespace(as_bytes=fail))
        answer = deliver(MAIL, message_id=ID)
    assert (answer.result, answer.error) == (Result.AWAY, "the file of the mail can't be written")
    assert list((tmp_path / "mail").iterdir()) == []
    assert "No space left on device" in "".join(capfd.readouterr())
    assert deliver(MAIL, message_id=ID).result is Result.TAKEN


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

    assert mails.TIMEOUT_SECONDS < due.CLAIM_SECONDS - 10
