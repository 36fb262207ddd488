"""Sends requests to URLs that customers gave us. No other code of the service may send one (SPEC §7)."""

from pipedai.outgoing.addresses import names_forbidden_address, names_forbidden_port
from pipedai.outgoing.request import Answer, post

__all__ = ["Answer", "names_forbidden_address", "names_forbidden_port", "post"]
