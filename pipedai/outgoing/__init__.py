"""Requests to URLs that customers gave us. Nothing else in the service may make one (SPEC §7)."""

from pipedai.outgoing.addresses import names_forbidden_address
from pipedai.outgoing.request import Answer, post

__all__ = ["Answer", "names_forbidden_address", "post"]
