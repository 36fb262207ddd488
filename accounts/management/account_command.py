"""The base of the commands that make accounts, which take the same arguments and refuse in one sentence."""

import getpass
import sys
from typing import Any

from django.core.management.base import CommandError, CommandParser

from accounts.serializers import RegisterBody
from pipedai.api.errors import ApiError, Invalid
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
    """Asks for a password twice on a terminal, or else reads it from standard input, whose first line it is. Raises
    CommandError if the two are not the same.
    """
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    password = getpass.getpass("Password: ")
    if getpass.getpass("Password again: ") != password:
        raise CommandError("The two passwords are not the same.")
    return password


def _sentence(errors: Any) -> str:
    """Joins the error messages of all fields into one line."""
    return " ".join(
        f"{field}: {message}" for field, messages in errors.items() for message in messages
    )
