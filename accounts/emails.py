"""Turns e-mail addresses into the one spelling in which accounts are stored and looked up, and by which throttles
count.
"""

import re
import unicodedata
from typing import NewType

import idna

# An address in the spelling of stored accounts. Only `read_email` makes one.
Email = NewType("Email", str)

# Characters that no address may have: control characters (Unicode's category Cc), and lone surrogates, which PostgreSQL
# can't store in text.
_REFUSED = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


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


def looks_like_itself(email: Email) -> bool:
    """Returns whether no other address looks the same as this one.

    Returns False for an address that has invisible characters, or letters in a second Unicode form (full-width,
    decomposed). DNS and mail servers drop or replace such characters. They would therefore treat this address and its
    plain form as one address, although the two would be different accounts here.
    """
    if not email.isprintable() or unicodedata.normalize("NFKC", email) != email:
        return False
    domain = email.rpartition("@")[2]
    try:
        # The domain must be equal to the result of the mapping that clients apply before they look a domain up (Unicode
        # Technical Standard 46). The mapping also drops invisible characters that count as printable, such as variation
        # selectors.
        return idna.uts46_remap(domain, std3_rules=False) == domain
    except idna.IDNAError:
        return False
