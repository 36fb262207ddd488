"""Writes mails as plain text and HTML, in which texts of others can't pass for links or our words.

The mail `accounts/verify` has the templates `mail/accounts/verify.txt` and `.html`, which extend `mail/base`.
"""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.template.loader import render_to_string
from django.utils.safestring import SafeString

PRODUCT = "PipedAI"
# The `host` of mails that earlier releases queued.
MAIL_HOST = "@mail"
# A mail shows at most this many characters of a text that other people wrote (SPEC §14).
MAX_FOREIGN = 200
_MAX_SUBJECT = 200

# Mail programs make links of two things: a scheme with `//`, and a dot before a word with a letter. Before the dot
# stands any sign but white space and ASCII punctuation. This covers vowels of Hindi and other accents, which count as
# neither letters nor digits.
_SCHEME = re.compile(r":(?=//)")
_DOT = re.compile(r"(?<=[^\s!-/:-@[-^`{-~])[.。．｡](?=\w*[^\W\d])")
# Values of these types can't hold a text that other people wrote.
_PLAIN = (int, float, Decimal, date, timedelta, UUID)
# The Unicode categories of control, invisible, private and unassigned characters, and of breaks of lines.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def mail_host(address: str) -> str:
    """Returns an outbox row's `host` for a mail: the domain after an @, which no URL's host begins with."""
    return f"@{address.rpartition('@')[2]}"


def is_mail(host: str) -> bool:
    return host.startswith("@")


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail to one address. Its texts may hold a token, so they are not in its `repr`, and neither is the address."""

    to: str = field(repr=False)
    subject: str = field(repr=False)
    text: str = field(repr=False)
    # Empty if the mail is plain text alone.
    html: str = field(repr=False)
    # Further headers. Sending a mail fails if one of them contains a line break.
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


class Own(str):
    """A text of ours, such as a link, which `compose` does not change. HTML in it is escaped all the same."""

    __slots__ = ()


def compose(
    name: str,
    *,
    to: str,
    subject: str,
    values: Mapping[str, Any] | None = None,
    link: str = "",
    why: str = "",
    headers: Mapping[str, str] | None = None,
    is_plain: bool = False,
) -> Mail:
    """Returns the mail with this name, without HTML if it `is_plain`. Texts in `values`, also nested, count as written
    by others and go through `foreign`, unless they are `Own`. `link` is shown as a button, `why` at the end. `subject`
    and `why` are ours and may name values in braces; never put texts of others into them.
    """
    safe: dict[str, Any] = {key: _made_safe(value) for key, value in (values or {}).items()}
    context = {**safe, "product": PRODUCT, "link": link, "why": why.format_map(safe)}
    text = render_to_string(f"mail/{name}.txt", context).strip() + "\n"
    html = "" if is_plain else render_to_string(f"mail/{name}.html", context)
    named = " ".join(subject.format_map(safe).split())
    return Mail(to, named[:_MAX_SUBJECT], text, html, dict(headers or {}))


def foreign(text: str) -> str:
    """Returns a text of others as one line of at most 200 characters without links (SPEC §14)."""
    line = unlinked(text)
    return line if len(line) <= MAX_FOREIGN else line[: MAX_FOREIGN - 1].rstrip() + "…"


def unlinked(text: str) -> str:
    """Returns a text of others as one line without links and unseen characters: `Visit https://evil.example now`
    becomes `Visit https[:]//evil[.]example now`.
    """
    seen = "".join(
        " " if character.isspace() else character
        for character in text
        if character.isspace() or unicodedata.category(character) not in _UNSEEN
    )
    line = " ".join(seen.split())
    return _DOT.sub("[.]", _SCHEME.sub("[:]", line))


def _made_safe(value: Any) -> Any:
    if isinstance(value, Own):
        return value
    if isinstance(value, SafeString):
        raise TypeError("A mail takes no text that is marked as HTML.")
    if isinstance(value, str):
        return foreign(value)
    if isinstance(value, Mapping):
        return {key: _made_safe(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_made_safe(each) for each in value]
    if value is None or isinstance(value, _PLAIN):
        return value
    raise TypeError(f"A mail can't show a {type(value).__name__}.")
