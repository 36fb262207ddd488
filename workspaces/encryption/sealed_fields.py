"""The list of all columns that have encrypted (sealed) values. Each app registers its columns, so that rotations and
checks of keys find all of them (SPEC §8).
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SealedField:
    """A column with encrypted values, and the column with the id of the data key of each value.

    The table must also have `id` and `environment_id`. The names of the table and the column are part of the
    encryption, so renaming either would make the stored values unreadable.
    """

    table: str
    column: str
    key_column: str

    def __str__(self) -> str:
        return f"{self.table}.{self.column}"

    def into(self, statement: str) -> str:
        """Returns the SQL statement with this column's names put in for `{table}`, `{column}` and `{key_column}`."""
        return statement.format(table=self.table, column=self.column, key_column=self.key_column)


_registered: dict[str, SealedField] = {}


def register_sealed_field(field: SealedField) -> None:
    """Registers a column for rotations and checks of keys. Call it in the module `ready` of the app."""
    _registered[str(field)] = field


def sealed_fields() -> tuple[SealedField, ...]:
    return tuple(_registered.values())
