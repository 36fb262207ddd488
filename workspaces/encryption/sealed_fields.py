"""The list of all columns with sealed values, by which rotations and checks find them (SPEC §8)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SealedField:
    """A column with sealed values, and the column with their data keys. The table also has `id` and `environment_id`.
    The names are part of the encryption, so renaming would make the stored values unreadable.
    """

    table: str
    column: str
    key_column: str

    def __str__(self) -> str:
        return f"{self.table}.{self.column}"

    def into(self, statement: str) -> str:
        return statement.format(table=self.table, column=self.column, key_column=self.key_column)


_registered: dict[str, SealedField] = {}


def register_sealed_field(field: SealedField) -> None:
    _registered[str(field)] = field


def sealed_fields() -> tuple[SealedField, ...]:
    return tuple(_registered.values())
