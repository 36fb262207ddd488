"""Turns e-mail addresses into the one spelling in which accounts are stored and looked up, and by which throttles
count.

A domain in Unicode has two spellings, `bücher.example` and `xn--bcher-kva.example`. New addresses have the first one.
Accounts from before may have the second, so they are looked up by both.
"""

import contextlib
import re
import unicodedata
from typing import NewType

import idna

# An address in the spelling of stored accounts. Only `read_email` makes one.
Email = NewType("Email", str)

# Characters that no address may have: control characters (Unicode's category Cc), and lone surrogates, which PostgreSQL
# can't store in text.
_REFUSED = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

# How a label of a domain begins that stands for one in Unicode.
_ENCODED = "xn--"


class NotAnEmail(ValueError):  # noqa: N818 - named as what it says
    """The error for a text that is no e-mail address. Its message is a sentence for the person who typed the text."""


def read_email(text: str) -> Email:
    """Returns the address in lower case and without white space at its ends. Raises NotAnEmail.

    An address with a control character is refused. If the character were removed instead, the rest might be the address
    of somebody else's account.
    """
    if _REFUSED.search(text):
        raise NotAnEmail("Must not hold control characters.")
    email = text.strip().lower()
    if not email:
        raise NotAnEmail("This field may not be blank.")
    return Email(email)


def in_one_form(email: Email) -> Email:
    """Returns the address with its domain in Unicode. A label that is not valid (IDNA 2008) stays as it is."""
    local, at, domain = email.rpartition("@")
    return Email(f"{local}{at}{'.'.join(_label(each) for each in domain.split('.'))}")


def _label(label: str) -> str:
    try:
        return idna.ulabel(label) if label.startswith(_ENCODED) else label
    except idna.IDNAError:
        return label


def spellings(email: Email) -> list[Email]:
    """Returns the spellings under which an account may have this address, and the given one first."""
    unicode = in_one_form(email)
    found = [email, unicode]
    local, at, domain = unicode.rpartition("@")
    if not domain.isascii():
        with contextlib.suppress(idna.IDNAError):
            found.append(Email(f"{local}{at}{idna.encode(domain).decode()}"))
    return list(dict.fromkeys(found))


def mailbox_of(email: Email) -> str:
    """Returns what all spellings of an address share, to count by it the mails that its owner gets. Accounts from
    before may have a quoted name before the @, such as `"ada"`, which means the same as without quotes.
    """
    return re.sub(r'["\\]', "", in_one_form(email))


def looks_like_itself(email: Email) -> bool:
    """Returns whether no other address looks the same as this one, or reaches the same mailbox.

    Returns False for an address that has invisible characters, or letters in a second Unicode form (full-width,
    decomposed). DNS and mail servers drop or replace such characters. They would therefore treat this address and its
    plain form as one address, although the two would be different accounts here. Returns False too for a quoted name
    before the @, which can be written in many ways, for a domain in the form that `in_one_form` replaces or can't read,
    and for what mail programs would decode in a header (RFC 2047).
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
