"""Mails say what we write, and what others wrote can pretend nothing."""

import pytest
from django.utils.safestring import mark_safe

from pipedai.outgoing.mails import Own, compose, foreign
from testing.world.cases import cases

LINK = "https://app.example.com/#token=a&b"


@cases(
    ("text", "shown"),
    [
        ("Nightly report", "Nightly report"),
        ("Ünïcode — 日本語 v1.2, 10.5 %", "Ünïcode — 日本語 v1.2, 10.5 %"),
        ("see https://evil.example/x", "see https[:]//evil[.]example/x"),
        ("www.evil.example", "www[.]evil[.]example"),
        ("evil。example", "evil[.]example"),
        ("हिन्दी.भारत", "हिन्दी[.]भारत"),
        ("evi\u0301l\u0301.example", "evi\u0301l\u0301[.]example"),
        ("ada@evil.example", "ada@evil[.]example"),
        ("http://127.0.0.1/", "http[:]//127.0.0.1/"),
        ("a\r\nBcc: b\tc\u2028d", "a Bcc: b c d"),
        ("\u202egnp\u200b.\u0000x\ud800", "gnp[.]x"),
        ("x" * 201, "x" * 199 + "…"),
        ("a." * 150, ("a[.]" * 50)[:199] + "…"),
    ],
)
def test_foreign_text_is_one_short_line_without_links(text, shown):
    assert foreign(text) == shown
    assert len(foreign(text)) <= 200


@pytest.fixture
def written(settings, tmp_path):
    """Composes the mail whose two templates a test gives."""
    settings.TEMPLATES = [{**settings.TEMPLATES[0], "DIRS": [tmp_path]}]
    (tmp_path / "mail").mkdir()

    def write(body, **rest):
        for ending in ("txt", "html"):
            (tmp_path / "mail" / f"x.{ending}").write_text(
                f"{{% extends 'mail/base.{ending}' %}}{{% block body %}}{body}{{% endblock %}}"
            )
        return compose("x", to="ada@example.com", **{"subject": "Hi", **rest})

    return write


def test_a_mail_has_the_products_name_one_link_and_the_reason(written):
    mail = written(
        "{{ says }}", values={"says": "Ada & Bob"}, link=LINK, why="You asked for {says}."
    )
    assert mail.text == (
        f"Ada & Bob\n\nOpen this link:\n{LINK}\n\n-- \nPipedAI\nYou asked for Ada & Bob.\n"
    )
    assert "Ada &amp; Bob" in mail.html
    assert mail.html.count('href="https://app.example.com/#token=a&amp;b"') == 2
    assert "You asked for Ada &amp; Bob." in mail.html
    assert "<img" not in mail.html
    # A long word of anybody's, wherever it stands, makes no phone scroll sideways.
    assert mail.html.index("overflow-wrap:anywhere") < mail.html.index("PipedAI</p>")


def test_names_can_forge_neither_a_link_nor_markup(written):
    name = '<a href="https://evil.example">Open</a>'
    mail = written(
        "{{ name }} {% for each in list %}{{ each.name }}{% endfor %}",
        values={"name": name, "list": [{"name": name}]},
        subject="{name} invites you",
    )
    for text in (mail.text, mail.html, mail.subject):
        assert "evil.example" not in text
    assert "<a" not in mail.html
    assert "\n" not in mail.subject


def test_a_subject_is_one_line_of_bounded_length(written):
    mail = written("x", values={"a": "{b}\r\nX: y" * 90}, subject="{a}\n{a}")
    assert len(mail.subject) == 200
    assert mail.subject.isprintable()


def test_our_own_text_is_shown_as_it_is_and_still_escaped(written):
    mail = written("{{ url }}", values={"url": Own("https://app.example.com/?a&b")})
    assert "https://app.example.com/?a&amp;b" in mail.html
    assert mail.text.startswith("https://app.example.com/?a&b")


@pytest.mark.parametrize("value", [mark_safe("<b>"), object()], ids=["html", "object"])
def test_a_value_that_nobody_can_vouch_for_is_a_programming_error(written, value):
    with pytest.raises(TypeError):
        written("{{ x }}", values={"x": value})
