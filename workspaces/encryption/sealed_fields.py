"""Knows every sealed column: apps register theirs, so that rotation and checks pass none over (SPEC §8)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SealedField:
    """A column that holds ciphertexts, and the one beside it that names each one's data key.

    The table also has `id` and `environment_id`. Table and column are part of what a ciphertext is
    bound to: renaming either makes what was sealed before unreadable.
    """

    table: str
    column: str
    key_column: str

    def __str__(self) -> str:
        return f"{self.table}.{self.column}"

    def into(self, statement: str) -> str:
        """The statement with this field's names in place of `{table}`, `{column}` and `{key_column}`."""
        return statement.format(table=self.table, column=self.column, key_column=self.key_column)


_registered: dict[str, SealedField] = {}


def register_sealed_field(field: SealedField) -> None:
    """Adds a field to those that are rotated and checked. Call it from `AppConfig.ready()`."""
    _registered[str(field)] = field


def sealed_fields() -> tuple[SealedField, ...]:
    """The sealed fields of all apps."""
    return tuple(_registered.values())
