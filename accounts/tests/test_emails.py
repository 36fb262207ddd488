"""An account's address has one spelling, and no other text is corrected into somebody's address."""

import pytest

from accounts.emails import NotAnEmail, looks_like_itself, read_email
from accounts.models import User
from accounts.serializers import LoginBody
from testing.world.cases import cases

ADA = "ada@example.com"


@cases(
    "text",
    [ADA, "ADA@Example.COM", f"  {ADA} ", f"\u00a0{ADA}\u2003", "ADA@EXAMPLE.COM".title()],
)
def test_case_and_white_space_at_the_ends_do_not_matter(text):
    assert read_email(text) == ADA


@cases("control", ["\0", "\t", "\n", "\r", "\x1f", "\x7f", "\x85", "\x9f", "\ud800"])
@cases("at", [0, 3, len(ADA)])
def test_a_control_character_is_refused_wherever_it_stands(control, at):
    with pytest.raises(NotAnEmail, match="control characters"):
        read_email(ADA[:at] + control + ADA[at:])


@cases("text", ["", "   ", "\u00a0"])
def test_nothing_is_nobodys_address(text):
    with pytest.raises(NotAnEmail, match="blank"):
        read_email(text)


@cases(
    "text",
    [
        "İ@example.com",
        "ẞ@example.com",
        "ΑΣ@example.com",
        "\uff21@example.com",
        "e\u0301@x.org",
        "ada@XN--BCHER-KVA.example",
    ],
)
def test_what_was_read_reads_as_itself(text):
    assert read_email(read_email(text)) == read_email(text)


@cases(
    ("text", "itself"),
    [
        (ADA, True),
        ("ada@exämple.com", True),
        ("ada@exa\u0308mple.com", False),
        ("ada@\uff45xample.com", False),
        ("ada@example.com\u200b", False),
        ("ada@exam\u00adple.com", False),
        ("\u202eada@example.com", False),
        ("ada@exam\ufe0fple.com", False),
        ("ada@exam\u034fple.com", False),
        ("ada@\u115fexample.com", False),
        ("ada@straße.example", True),
        ("ada@bücher。example", False),
        ("ada@xn--bcher-kva.example", True),
        ("ada@xn--a.example", False),
        ('"ada"@example.com', False),
        ('"\\ada"@example.com', False),
        ("=?utf-8?q?ada?=@example.com", False),
        ("ada@[192.0.2.1]", True),
        ("ada @example.com", True),  # the serializer's rules for addresses refuse it
    ],
)
def test_an_invisible_or_second_spelling_is_noticed(text, itself):
    assert looks_like_itself(read_email(text)) is itself


@pytest.mark.parametrize("text", [None, "", "ada\0@example.com", "nobody@example.com"])
def test_django_finds_nobody_by_what_is_no_address(db, text):
    with pytest.raises(User.DoesNotExist):
        User.objects.get_by_natural_key(text)


@cases(
    ("text", "read"),
    [
        ("ada@xn--bcher-kva.example", "ada@bücher.example"),
        ("ada@XN--BCHER-KVA.Example", "ada@bücher.example"),
        ("ada@bücher.example", "ada@bücher.example"),
        # Other rules would make this domain another person's.
        ("ada@xn--strae-oqa.example", "ada@straße.example"),
        ("ada@xn--a.example", "ada@xn--a.example"),
    ],
)
def test_a_domain_has_one_form(text, read):
    assert read_email(text) == read


def test_the_domain_of_a_long_text_is_not_decoded(monkeypatch):
    monkeypatch.setattr("idna.ulabel", None)
    text = f"ada@{'xn--bcher-kva.' * 70_000}"
    assert read_email(text.upper()) == text
    assert not LoginBody(data={"email": text, "password": "x"}).is_valid()
