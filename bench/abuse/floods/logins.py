"""A flood of logins with wrong passwords, to so many accounts from so many addresses that no throttle refuses them."""

import secrets
from collections import Counter
from collections.abc import Iterator

from bench.abuse.flooding import Flood, Stage, ask_again_and_again
from bench.abuse.tenants import random_address
from bench.http_client import request

_AT_ONCE = 16


class Logins(Flood):
    """Each login costs a password hash, which is expensive by design, whether or not there is such an account."""

    name = "logins"
    what = f"{_AT_ONCE} logins at once, of many accounts from many addresses"

    def prepare(self, stage: Stage) -> None:
        """Do nothing: this flood needs no account."""

    async def attack(self, port: int, answers: Counter[str]) -> None:
        await ask_again_and_again(port, _logins(), answers, times=_AT_ONCE)


def _logins() -> Iterator[bytes]:
    while True:
        body = {"email": f"{secrets.token_hex(6)}@example.com", "password": secrets.token_hex(8)}
        yield request("POST", "/auth/login", address=random_address(), body=body)
