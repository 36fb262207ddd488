import secrets
from typing import Any

from django.core.management.base import CommandError, CommandParser

from accounts.emails import NotAnEmail, read_email
from accounts.management.commands.create_user import AccountCommand, read_account, typed_password
from accounts.services import create_staff, promote_to_staff
from pipedai.api.errors import NotFound
from pipedai.events import SYSTEM


class Command(AccountCommand):
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
  manage.py create_staff ada@example.com --password                whose password works with OIDC_ONLY, too

Exits with 0 when the user is staff, else with 1 and one sentence that says why.
"""

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        how = parser.add_mutually_exclusive_group()
        how.add_argument(
            "--generate", action="store_true", help="generate the password and print it, once"
        )
        how.add_argument(
            "--promote",
            action="store_true",
            help="make an existing user staff, who keeps name and password; nothing if they are",
        )

        parser.add_argument(
            "--password",
            action="store_true",
            help="let the password open admin also while OIDC_ONLY is set: the way in if the issuer is away",
        )

    def handle(self, *args: Any, email: str, name: str, **options: Any) -> None:
        if options["promote"] and options["password"]:
            raise CommandError("--password is for a new user: --promote keeps the one there is.")
        if options["promote"]:
            self.promote(email)
        else:
            self.create(email, name, generate=options["generate"], allowed=options["password"])

    def promote(self, email: str) -> None:
        try:
            changed = promote_to_staff(email=read_email(email), actor=SYSTEM)
        except (NotFound, NotAnEmail):
            raise CommandError(f"There is no active user {email}.") from None
        self.stdout.write(f"{email} is staff{' now' if changed else ' already'}.")

    def create(self, email: str, name: str, *, generate: bool, allowed: bool) -> None:
        password = secrets.token_urlsafe(15) if generate else typed_password()
        fields = read_account(email=email, name=name, password=password)
        user = create_staff(**fields, password_allowed=allowed, actor=SYSTEM)
        self.stdout.write(f"{user.email} is staff now.")
        if generate:
            self.stdout.write(f"Password: {password}")
