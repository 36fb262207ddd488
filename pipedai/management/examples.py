"""Management commands whose `--help` ends with examples, laid out as they are written."""

import argparse
from typing import Any, ClassVar

from django.core.management.base import BaseCommand, CommandParser, DjangoHelpFormatter


class _Formatter(DjangoHelpFormatter):
    """Wraps everything but the text at the end."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n" in text:
            return argparse.RawDescriptionHelpFormatter._fill_text(self, text, width, indent)
        return super()._fill_text(text, width, indent)


class CommandWithExamples(BaseCommand):
    """A command with `examples`: lines of text, each a call and what it does."""

    examples: ClassVar[str]

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        """Its parser, whose help ends with the examples."""
        parser = super().create_parser(prog_name, subcommand, epilog=self.examples, **kwargs)
        parser.formatter_class = _Formatter
        return parser
