"""The program `pipedai`: its groups of commands, and how it ends."""

import io
import signal
import sys
import traceback
from pathlib import Path

import click

from pipedai_cli import __version__
from pipedai_cli.api import Exit, Failure
from pipedai_cli.commands import account, changes, operating, runs
from pipedai_cli.output import one_line
from pipedai_cli.session import DEFAULT_PROFILE, Session

# With the list of commands, this text fits on a terminal of 24 lines, without `--help` and `--version`.
_HELP = """\b
Begin with `pipedai login --url URL`, or set PIPEDAI_URL and PIPEDAI_KEY.
Reads PIPEDAI_SECRET_*, XDG_CONFIG_HOME, HTTPS_PROXY, SSL_CERT_FILE, NO_COLOR.
Exits: 1 run failed, 2 usage, 3 unreachable, 4 refused, 5 waits for a person.
"""
# The exit code that a shell gives for a program that SIGPIPE ended.
_OUTPUT_CLOSED = 141


_HELP_OPTIONS = ["-h", "--help"]


@click.group(
    help=_HELP, context_settings={"help_option_names": _HELP_OPTIONS, "max_content_width": 110}
)
@click.help_option(*_HELP_OPTIONS, hidden=True)
@click.version_option(__version__, prog_name="pipedai", hidden=True)
@click.option(
    "--profile",
    default=DEFAULT_PROFILE,
    envvar="PIPEDAI_PROFILE",
    help="Which login to use, else PIPEDAI_PROFILE.",
)
@click.pass_context
def cli(context: click.Context, profile: str) -> None:
    context.obj = Session(profile_name=profile)
    context.call_on_close(context.obj.close)


for module in (account, changes, runs, operating):
    for command in module.COMMANDS:
        cli.add_command(command)


def main(args: list[str] | None = None) -> None:
    """Run the command line, and exit with the code that docs/cli.md lists."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names may have characters that the terminal's encoding lacks.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        cli(args, prog_name="pipedai", standalone_mode=False)
    except Failure as failure:
        _say(str(failure))
        sys.exit(int(failure.exit_code))
    except click.UsageError as error:
        # A group without a command shows its help.
        if error.ctx is None or isinstance(
            error, getattr(click.exceptions, "NoArgsIsHelpError", ())
        ):
            error.show()
        else:
            shows = f"`{error.ctx.command_path} --help` shows how."
            _say(f"{one_line(error.format_message())} {shows}")
        sys.exit(error.exit_code)
    except click.ClickException as error:
        _say(one_line(error.format_message()))
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        # A shell expects this exit code of a program that Ctrl-C ended.
        sys.exit(128 + signal.SIGINT)
    except SystemExit:
        # Click and Rich end with 1 when the output's reader, such as `head`, has enough. But 1 says that a run failed.
        sys.exit(_OUTPUT_CLOSED)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{type(error).__name__} in {Path(place.filename).name}, line {place.lineno}"
        _say(f"What the service answered can't be read, or pipedai has a fault: {where}.")
        sys.exit(int(Exit.UNREACHABLE))


def _say(sentence: str) -> None:
    click.echo(f"pipedai: {sentence}", err=True)
