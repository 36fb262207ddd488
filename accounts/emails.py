"""Reads e-mail addresses: one spelling for all that look an account up, store it or count its logins."""

import re
import unicodedata
from typing import NewType

# As accounts are stored and looked up, and as throttles count them. `read_email` alone makes one.
Email = NewType("Email", str)

# Control characters (Unicode's category Cc), and lone surrogates, which no table can be asked for.
_REFUSED = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class NotAnEmail(ValueError):  # noqa: N818 - named as what it says
    """The text can be nobody's address; the message is a sentence for whoever typed it."""


def read_email(text: str) -> Email:
    """The account that this text names, without white space at its ends and in lower case. Raises NotAnEmail.

    A control character is refused and never taken out: the text without it might name somebody else's account.
    """
    if _REFUSED.search(text):
        raise NotAnEmail("Must not hold control characters.")
    email = text.strip().lower()
    if not email:
        raise NotAnEmail("This field may not be blank.")
    return Email(email)


def looks_like_itself(email: Email) -> bool:
    """Whether the address holds nothing invisible and no second way to write a letter (full-width, decomposed).

    A new account must not look like another: the rules for domain names drop such characters, and so DNS and mail
    servers, but not our tables, take the two for the same.
    """
    return email.isprintable() and unicodedata.normalize("NFKC", email) == email
