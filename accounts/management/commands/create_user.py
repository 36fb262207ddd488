"""`manage.py create_user`: makes a user, even if registration is closed. `create_staff` has the same base."""

import getpass
import secrets
import sys
from typing import Any

from django.core.management.base import CommandError, CommandParser

from accounts.passwords import check_passwords_are_on
from accounts.serializers import RegisterBody
from accounts.services import create_user, create_user_with_link
from pipedai.api.errors import ApiError, Invalid
from pipedai.events import SYSTEM
from pipedai.management.operator_command import OperatorCommand


class AccountCommand(OperatorCommand):
    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("email", metavar="EMAIL", help="what they log in with")
        parser.add_argument("--name", default="", help="what they are called")

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Runs the command. Raises CommandError with a sentence about what is wrong with the account or the
        database.
        """
        try:
            return super().execute(*args, **options)
        except Invalid as error:
            raise CommandError(_sentence(error.fields)) from None
        except ApiError as error:
            raise CommandError(error.message) from None


def read_account(*, email: str, name: str, password: str) -> dict[str, Any]:
    """Returns the fields of a new account, checked as at registration. Raises CommandError."""
    body = RegisterBody(data={"email": email, "password": password, "name": name})
    if not body.is_valid():
        raise CommandError(_sentence(body.errors))
    return dict(body.validated_data)


def typed_password() -> str:
    """Asks for a password twice on a terminal, or reads it from the first line of standard input. Raises CommandError
    if the two entries differ.
    """
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    password = getpass.getpass("Password: ")
    if getpass.getpass("Password again: ") != password:
        raise CommandError("The two passwords are not the same.")
    return password


def _sentence(errors: Any) -> str:
    return " ".join(
        f"{field}: {message}" for field, messages in errors.items() for message in messages
    )


class Command(AccountCommand):
    help = (
        "Make a user, also where REGISTRATION lets nobody register. The e-mail address counts as confirmed, because"
        " you vouch for it. The password never stands on the command line: it is asked for on a terminal, read from"
        " standard input (its first line) otherwise, or set by its owner through a link. A user who exists already is"
        " an error. Staff are made by create_staff."
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
        if link:
            check_passwords_are_on()
        # The first password of an account with a link is random, and nobody ever sees it.
        password = secrets.token_urlsafe(32) if link else typed_password()
        fields = read_account(email=email, name=name, password=password)
        if link:
            user, url = create_user_with_link(**fields, actor=SYSTEM)
        else:
            user, url = create_user(**fields, actor=SYSTEM), ""
        self.stdout.write(f"{user.email} has an account now.")
        if url:
            self.stdout.write(f"Hand over this link, which sets the password: {url}")
