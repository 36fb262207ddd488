"""Turns e-mail addresses into the one form in which they are stored, looked up and counted by throttles."""

import re
import unicodedata
from typing import NewType

import idna

# An address in the form in which accounts are stored. Only `read_email` makes one.
Email = NewType("Email", str)

# Characters that no address may have: control characters (Unicode's category Cc), and lone surrogates, which PostgreSQL
# can't store in text.
_REFUSED = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

# The domain of a longer text stays encoded, because decoding a megabyte takes seconds. No account has such an address,
# which has at most 254 characters once its domain is decoded.
_LONGEST = 1024

# The prefix of a domain's label that encodes a label in Unicode.
_ENCODED = "xn--"


class NotAnEmail(ValueError):  # noqa: N818 - named as what it says
    """The error for a text that is no e-mail address. Its message is a sentence for the person who typed the text."""


def read_email(text: str) -> Email:
    """Returns the address in lower case, without white space around it, and with its domain in Unicode. Raises
    NotAnEmail. Control characters are refused, because the rest might be another account's.
    """
    if _REFUSED.search(text):
        raise NotAnEmail("Must not hold control characters.")
    email = text.strip().lower()
    if not email:
        raise NotAnEmail("This field may not be blank.")
    if len(email) > _LONGEST:
        return Email(email)
    local, at, domain = email.rpartition("@")
    return Email(f"{local}{at}{'.'.join(_label(each) for each in domain.split('.'))}")


def _label(label: str) -> str:
    try:
        return idna.ulabel(label) if label.startswith(_ENCODED) else label
    except idna.IDNAError:
        return label


def looks_like_itself(email: Email) -> bool:
    """Returns whether no other address looks the same or reaches the same mailbox. It is False for invisible
    characters, second Unicode forms, quoted names, and text that mail programs would decode in a header (RFC 2047).
    """
    if not email.isprintable() or unicodedata.normalize("NFKC", email) != email:
        return False
    local, _, domain = email.rpartition("@")
    if '"' in local or "=?" in local or any(x.startswith(_ENCODED) for x in domain.split(".")):
        return False
    try:
        # The domain must be equal to the result of the mapping that clients apply before they look a domain up (Unicode
        # Technical Standard 46). The mapping also drops invisible characters that count as printable, such as variation
        # selectors.
        return idna.uts46_remap(domain, std3_rules=False) == domain
    except idna.IDNAError:
        return False
