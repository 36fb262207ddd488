import getpass
import secrets
import sys
from typing import Any

from django.core.management.base import CommandError, CommandParser

from accounts.emails import NotAnEmail, read_email
from accounts.serializers import RegisterBody
from accounts.services import create_staff, promote_to_staff
from pipedai.api.errors import ApiError, Invalid, NotFound
from pipedai.events import SYSTEM
from pipedai.management.operator_command import OperatorCommand


class Command(OperatorCommand):
    help = (
        "Make a staff user, who may log in to Django admin at /admin and do there whatever it offers:"
        " there is one kind of staff. Staff have no access to any environment under /api/v1 by it."
        " The password never stands on the command line: it is asked for on a terminal, read from"
        " standard input (its first line) otherwise, or generated. A user who exists already is an"
        " error, unless with --promote."
    )
    examples = """examples:
  manage.py create_staff ada@example.com --name "Ada Lovelace"     asks for the password, twice
  manage.py create_staff ada@example.com --generate                prints a generated password, once
  manage.py create_staff ada@example.com < password.txt            reads the password's one line
  manage.py create_staff ada@example.com --promote                 for somebody who has registered

Exits with 0 when the user is staff, else with 1 and one sentence that says why.
"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("email", metavar="EMAIL", help="what they log in with")
        parser.add_argument("--name", default="", help="what they are called in admin")
        how = parser.add_mutually_exclusive_group()
        how.add_argument(
            "--generate", action="store_true", help="generate the password and print it, once"
        )
        how.add_argument(
            "--promote",
            action="store_true",
            help="make an existing user staff, who keeps name and password; nothing if they are",
        )

    def handle(self, *args: Any, email: str, name: str, **options: Any) -> None:
        try:
            if options["promote"]:
                self.promote(email)
            else:
                self.create(email, name, generate=options["generate"])
        except Invalid as error:
            raise CommandError(_sentence(error.fields)) from None
        except ApiError as error:
            raise CommandError(error.message) from None

    def promote(self, email: str) -> None:
        try:
            changed = promote_to_staff(email=read_email(email), actor=SYSTEM)
        except (NotFound, NotAnEmail):
            raise CommandError(f"There is no active user {email}.") from None
        self.stdout.write(f"{email} is staff{' now' if changed else ' already'}.")

    def create(self, email: str, name: str, *, generate: bool) -> None:
        password = secrets.token_urlsafe(15) if generate else _password()
        body = RegisterBody(data={"email": email, "password": password, "name": name})
        if not body.is_valid():
            raise CommandError(_sentence(body.errors))
        user = create_staff(**body.validated_data, actor=SYSTEM)
        self.stdout.write(f"{user.email} is staff now.")
        if generate:
            self.stdout.write(f"Password: {password}")


def _password() -> str:
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
