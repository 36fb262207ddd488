"""Turns e-mail addresses into the one form in which they are stored and looked up, and by which throttles count."""

import re
import unicodedata
from typing import NewType

import idna

# An address in its one form. Only `read_email` makes one.
Email = NewType("Email", str)

# Characters that no address may have: control characters (Unicode's category Cc), and lone surrogates, which PostgreSQL
# can't store in text.
_REFUSED = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

# How a label of a domain begins that stands for one in Unicode.
_ENCODED = "xn--"


class NotAnEmail(ValueError):  # noqa: N818 - named as what it says
    """The error for a text that is no e-mail address. Its message is a sentence for the person who typed the text."""


def read_email(text: str) -> Email:
    """Returns the address in lower case, without white space at its ends, and with its domain in Unicode. Raises
    NotAnEmail.

    A domain in Unicode can be written in two ways, `bücher.example` and `xn--bcher-kva.example`. The first is returned
    for both. A label that is not valid (IDNA 2008) stays as it is.

    An address with a control character is refused. If the character were removed instead, the rest might be the address
    of somebody else's account.
    """
    if _REFUSED.search(text):
        raise NotAnEmail("Must not hold control characters.")
    email = text.strip().lower()
    if not email:
        raise NotAnEmail("This field may not be blank.")
    local, at, domain = email.rpartition("@")
    return Email(f"{local}{at}{'.'.join(_label(each) for each in domain.split('.'))}")


def _label(label: str) -> str:
    try:
        return idna.ulabel(label) if label.startswith(_ENCODED) else label
    except idna.IDNAError:
        return label


def looks_like_itself(email: Email) -> bool:
    """Returns whether no other address looks the same as this one, or reaches the same mailbox.

    Returns False for an address that has invisible characters, or letters in a second Unicode form (full-width,
    decomposed). DNS and mail servers drop or replace such characters. They would therefore treat this address and its
    plain form as one address, although the two would be different accounts here. Returns False too for a quoted name
    before the @, which can be written in many ways, for a domain that `read_email` can't bring into Unicode, and for
    what mail programs would decode in a header (RFC 2047).
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
