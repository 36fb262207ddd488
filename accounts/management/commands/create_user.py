"""`manage.py create_user`: makes a user who may use the API, whoever else may register."""

import secrets
from typing import Any

from django.core.management.base import CommandParser

from accounts.management.account_command import AccountCommand, read_account, typed_password
from accounts.services import create_user, create_user_with_link
from pipedai.events import SYSTEM


class Command(AccountCommand):
    help = (
        "Make a user, also where REGISTRATION lets nobody register. The address counts as confirmed, because you vouch"
        " for it. The password never stands on the command line: it is asked for on a terminal, read from standard"
        " input (its first line) otherwise, or set by its owner through a link. A user who exists already is an error."
        " Staff are made by create_staff."
    )
    examples = """examples:
  manage.py create_user ada@example.com --name "Ada Lovelace"     asks for the password, twice
  manage.py create_user ada@example.com --link                    prints a link for Ada to set a password
  manage.py create_user ada@example.com < password.txt            reads the password's one line

Exits with 0 when the user is made, else with 1 and one sentence that says why.
"""

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--link",
            action="store_true",
            help="print a link that sets the password, once and within seven days; no mail is sent",
        )

    def handle(self, *args: Any, email: str, name: str, link: bool, **options: Any) -> None:
        # With a link, nobody ever learns the first password.
        password = secrets.token_urlsafe(32) if link else typed_password()
        fields = read_account(email=email, name=name, password=password)
        if link:
            user, url = create_user_with_link(**fields, actor=SYSTEM)
        else:
            user, url = create_user(**fields, actor=SYSTEM), ""
        self.stdout.write(f"{user.email} has an account now.")
        if url:
            self.stdout.write(f"Hand over this link, which sets the password: {url}")
