"""The registry of sealed columns: apps register theirs, so that rotations and checks miss none (SPEC §8)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SealedField:
    """A column of ciphertexts, and the column with the id of each one's data key.

    The table also has `id` and `environment_id`. A ciphertext is bound to the names of its table and
    column, so renaming either would make the values that were sealed before unreadable.
    """

    table: str
    column: str
    key_column: str

    def __str__(self) -> str:
        return f"{self.table}.{self.column}"

    def into(self, statement: str) -> str:
        """Returns the statement with this field's names for `{table}`, `{column}` and `{key_column}`."""
        return statement.format(table=self.table, column=self.column, key_column=self.key_column)


_registered: dict[str, SealedField] = {}


def register_sealed_field(field: SealedField) -> None:
    """Adds a field to those that rotations and checks read. Call it from `AppConfig.ready()`."""
    _registered[str(field)] = field


def sealed_fields() -> tuple[SealedField, ...]:
    return tuple(_registered.values())
