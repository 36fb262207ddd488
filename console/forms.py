"""Makes a form from the fields of an API body, and JSON from what people type into it.

A form has no rules of its own: the body's serializer says which fields there are and of which type, and the API checks
the values.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from django.http import HttpRequest
from rest_framework import serializers
from rest_framework.exceptions import ParseError

from console.asking import Answer, Json, Refused, ask, body_of, role_of
from pipedai.api.fields import TimezoneField
from pipedai.api.parsers import parse_json

if TYPE_CHECKING:
    from console.screens.finding import Named


def text_of(value: Any, kind: str) -> Any:
    """Returns the value in the form in which an HTML input holds it."""
    if value is None or value == []:
        return ""
    if kind == "json":
        return json.dumps(value, indent=2)
    if kind == "value":
        return _text_of_value(value)
    if kind == "time":
        # The browser's input for a time takes no seconds and no zone.
        return value[:16]
    if isinstance(value, bool):
        return value
    if isinstance(value, list):
        return (", " if kind == "commas" else "\n").join(map(str, value))
    return str(value)


def _text_of_value(value: Any) -> str:
    """Returns the value of a clause as a person types it: in quotes if it would be read as another type otherwise."""
    if isinstance(value, list):
        plain = ", ".join(map(_text_of_value, value))
        exact = ", ".join(json.dumps(each, ensure_ascii=False) for each in value)
        return plain if values_of(plain) == value else exact
    is_plain = value and fits_one_line(value) and value_of("value", value) == value
    return str(value) if is_plain else json.dumps(value, ensure_ascii=False)


def fits_one_line(value: Any) -> bool:
    """Returns whether an input of one line keeps a text. It loses characters that do not print, such as line breaks,
    and a text of spaces alone counts as empty.
    """
    return value == "" or (isinstance(value, str) and value.isprintable() and bool(value.strip()))


# The API takes no longer values, of which those in a payload may be longest, and at most 20 rows of a list: clauses.
_LONGEST_VALUES = 64 * 1024
_MOST_ROWS = 100


def values_of(text: str) -> list[Any]:
    """Returns the values that commas separate."""
    try:
        return list(parse_json(f"[{text}]".encode()))
    except ParseError:
        # To find the type of each value takes long, and the API refuses a longer text in any case.
        if len(text) > _LONGEST_VALUES:
            return [text]
        return [value_of("value", each.strip()) for each in text.split(",") if each.strip()]


def value_of(kind: str, text: str) -> Any:
    """Returns the JSON value that a person typed. Raises ValueError with the message to show at the field."""
    if kind == "number":
        # A text that is no number is sent to the API unchanged, whose error says what it wants instead. So is a number
        # that is too long for int().
        is_number = len(text) < 100 and text.strip().removeprefix("-").isdecimal()
        return int(text) if is_number else text
    if kind in {"json", "value"}:
        try:
            return parse_json(text.encode())
        except ParseError as error:
            if kind == "value":
                return text
            raise ValueError(str(error.detail)) from None
    if kind == "secrets":
        return [line for line in text.split("\n") if line.strip()]
    if kind == "names":
        names = [line.strip() for line in text.split("\n") if line.strip()]
        return "*" if "*" in names else names
    # The browser's field for a time knows no zone; its label says that the time is in UTC.
    return f"{text}Z" if kind == "time" else text


# The kinds of fields that keep a secret. The API never shows their value, so a form that leaves one empty changes
# nothing.
_SECRET = {"password", "headers", "secrets"}
# The kinds of fields that can't be left empty.
_NEVER_EMPTY = {"check", "choice", "choices", "hidden"}
# The statuses of errors about a form. Other errors are about the visitor's right to see the page.
_ABOUT_THE_FORM = {400, 409, 429, 503}


@dataclass(frozen=True)
class Look:
    """How a form shows a field of the body, if its declaration and type don't say enough. A field whose name people
    should not see has a `label` and a `help_text` where the body declares it.

    `kind` is `text`, `area`, `number`, `check`, `choice`, `choices`, `list`, `email`, `password`, `headers`, `secrets`,
    `json`, `value` (of a clause), `names` (one a line, or `*`), `commas` (a list in one line), `time`, `zone`, `hidden`
    or `rows` (a list of objects, each called `row`, with the fields of `looks`); "" chooses by the type. `choices` are
    pairs of a value and what people read. A list with choices has check boxes, and one without has a line for each
    item. The choices of rows are values that replace all rows, and "" for the rows. `required` is set if the API
    requires the field only for some values of another one, which its declaration can't say.
    """

    label: str = ""
    help: str = ""
    kind: str = ""
    choices: Iterable[tuple[str, str]] = ()
    autocomplete: str = "off"
    row: str = ""
    looks: Mapping[str, "Look"] = field(default_factory=dict)
    required: bool = False
    # What the number counts, such as `seconds`.
    unit: str = ""
    # The prefix of the secret that the page offers to generate; None if it offers none.
    generates: str | None = None
    # How the value, the id of a row, is found by a name if the list of rows is long.
    finder: "Named | None" = None
    # How a JSON value is shown as rows. A value that rows can't express is shown as JSON in a field below them.
    shape: "Shape | None" = None


class WrongRow(Exception):  # noqa: N818 - named as what it tells
    """The error for a field of a row: the row's number, the field's name, and the message."""

    def __init__(self, number: int, name: str, said: str) -> None:
        super().__init__(said)
        self.number, self.name = number, name


class Shape(Protocol):
    """Converts a JSON value into rows, and rows into a JSON value."""

    # The fields of a row.
    Row: type[serializers.Serializer[Any]]
    looks: Mapping[str, Look]
    # Whether the form also accepts the value as JSON.
    pastes: bool

    def rows_of(self, value: Any) -> list[Json] | None:
        """Returns the rows, or None if they would not convert back to exactly this value."""

    def value_of(self, rows: list[Json]) -> Any:
        """Returns the value of the rows. Raises WrongRow."""


# The fields of a clause, and what people read for its operators.
_CLAUSE = {
    "path": Look("Path"),
    "op": Look(
        "Operator",
        choices=[
            ("eq", "is"),
            ("ne", "is not"),
            ("in", "is one of"),
            ("contains", "contains"),
            ("startsWith", "begins with"),
            ("gt", "is more than"),
            ("gte", "is at least"),
            ("lt", "is less than"),
            ("lte", "is at most"),
            ("exists", "exists"),
        ],
    ),
    "value": Look("Value", kind="value"),
}


_CLAUSES = (
    "All must hold. A path is such as /output/found, and commas separate the values of “is one of”."
)


def clauses(label: str, words: Iterable[tuple[str, str]] = ()) -> Look:
    """Returns how a form shows clauses, or a choice of some words that replace them."""
    return Look(label, _CLAUSES, kind="rows", row="Condition", looks=_CLAUSE, choices=words)


# The field `key`, which every row that files may describe has.
_KEY = Look(
    "Git key",
    help="How files in Git name it: small letters, digits, dots, hyphens and underscores.",
)


# It has no `repr`, because what was typed may be a password.
@dataclass(repr=False)
class Field:
    """One field of a form, ready for the template console/field.html."""

    name: str
    label: str
    help: str
    look: Look
    kind: str
    required: bool
    choices: list[tuple[str, str]]
    bounds: dict[str, int]
    # The field of the serializer.
    declared: Any
    # The field's name in the object of its row.
    key: str
    value: Any = ""
    errors: list[str] = field(default_factory=list)
    rows: list[list["Field"]] = field(default_factory=list)
    # The names and the values of headers, as they were typed.
    pairs: list[tuple[str, str]] = field(default_factory=list)
    # The names of the headers when the form was shown. Their values stay unless new ones are typed.
    had: list[str] = field(default_factory=list)
    # Whether the page opens with the field in focus.
    focused: bool = False
    # Whether its label says "required", which it does only if other fields of the form may be left empty.
    marked: bool = False

    @property
    def parts(self) -> list["Field"]:
        """Returns the field and the fields of its rows."""
        return [self, *(each for row in self.rows for part in row for each in part.parts)]

    @property
    def is_pasted(self) -> bool:
        """Returns whether the value is shown as JSON, because rows can't express it."""
        return bool(self.look.shape and self.value)

    @property
    def is_wrong(self) -> bool:
        return any(part.errors for part in self.parts)

    @property
    def said(self) -> str:
        """Returns the field's errors, for a summary that links to the field."""
        return " ".join(self.errors)

    def put(self, rows: list[list["Field"]]) -> None:
        """Replaces the rows, and numbers the names of their fields, as the API does in its errors."""
        self.rows = rows
        for number, row in enumerate(rows):
            for part in row:
                part.rename(f"{self.name}.{number}.{part.key}")

    def rename(self, name: str) -> None:
        self.name = name
        self.put(self.rows)


class Form:
    """A form that sends one body to the API. `method` and `path` name the endpoint, `looks` the fields that it shows. A
    name such as `summary.at` is a field of an object in the body, which is null if the first of its fields is empty. A
    `complete` form also shows the body's other fields, after these.
    """

    def __init__(
        self,
        method: str,
        path: str,
        looks: Mapping[str, Look],
        *,
        values: Json | None = None,
        catches: Iterable[int] = (),
        complete: bool = False,
    ) -> None:
        self.method, self.path = method, path
        self._catches = _ABOUT_THE_FORM | set(catches)
        self._partial = method == "PATCH"
        self.is_new = not self._partial
        # The role that the endpoint requires.
        self.needs = role_of(method, path)
        fields = body_of(method, path)().fields
        if "managedBy" in fields:
            looks = {**looks, "key": _KEY}
        if complete:
            shown = {
                "managedBy",
                "mcpHeadersMode",
                *looks,
                *(name.partition(".")[0] for name in looks),
            }
            others = [name for name, _ in fields.items() if name not in shown]
            looks = {**looks, **{name: Look() for name in others}}
        # The label of the files that describe the row that the form changes, if any do.
        self.managed_by = (values or {}).get("managedBy")
        self.errors: list[str] = []
        self.status = 200
        self.fields = _fields(fields, looks, values or {})

    def send(
        self, request: HttpRequest, *, more: Json | None = None, key: str = ""
    ) -> Answer | None:
        """Sends what was typed, and `more`, to the API, and returns its answer. Returns None if the form must be shown:
        nobody has sent it yet, a button added or removed a row, or there are errors. Raises Refused for errors that no
        correction of the form helps against, such as a role that is too low.
        """
        if request.method != "POST" or self._changes_rows(request):
            return None
        body = {**self.read(request), **(more or {})}
        if any(each.is_wrong for each in self.fields):
            self.status = 400
            self._focus()
            return None
        try:
            return ask(request, self.method, self.path, body=body, key=key)
        except Refused as refused:
            if refused.status not in self._catches:
                raise
            self._show(refused)
            return None

    @property
    def wrong(self) -> list[Field]:
        """Returns the fields with errors, in their order."""
        return [part for each in self.fields for part in each.parts if part.errors]

    def _focus(self) -> None:
        for each in self.wrong[:1]:
            each.focused = True

    def read(self, request: HttpRequest) -> Json:
        """Stores what was typed, so that the form can be shown again, and returns it as the JSON of the body."""
        body: Json = {}
        for each in self.fields:
            self._read(each, request, body)
        return _nested(body)

    def _changes_rows(self, request: HttpRequest) -> bool:
        """If the pressed button adds or removes a row, does so, and stores what was typed. Returns whether it did."""
        added, removed = request.POST.get("add"), request.POST.get("remove")
        if added or removed:
            self.read(request)
        parts = [part for each in self.fields for part in each.parts]
        for each in parts if added or removed else ():
            each.errors = []
            if each.kind == "headers":
                if added == each.name:
                    each.pairs.append(("", ""))
                each.pairs = [
                    pair for n, pair in enumerate(each.pairs) if removed != f"{each.name}.{n}"
                ]
            if each.kind != "rows":
                continue
            rows = [row for n, row in enumerate(each.rows) if removed != f"{each.name}.{n}"]
            each.focused = len(rows) < len(each.rows)
            if added == each.name:
                rows.append(_row(each, {}))
                rows[-1][0].focused = True
                each.value = each.value if each.look.shape else ""
            each.put(rows)
        return bool(added or removed)

    def _read_rows(self, each: Field, request: HttpRequest) -> list[Json]:
        """Stores the typed rows, and returns them as JSON. A row exists if one of its fields was sent."""
        start = f"{each.name}."
        sent = {name[len(start) :].split(".")[0] for name in request.POST if name.startswith(start)}
        rows, found = [], []
        numbers = sorted((n for n in sent if n.isdecimal() and len(n) < 5), key=int)
        # Of a list that the API refuses for its length, a part is enough. Fields of a JSON value may be more.
        for number in numbers if each.look.shape else numbers[:_MOST_ROWS]:
            row, values = _row(each, {}), dict[str, Any]()
            for part in row:
                part.rename(f"{each.name}.{number}.{part.key}")
                self._read(part, request, values)
                if part.kind == "value" and values.get("op") == "in":
                    values[part.key] = values_of(part.value)
            rows.append(row)
            found.append(_nested(values))
        each.put(rows)
        return found

    def _read_headers(self, each: Field, request: HttpRequest, body: Json) -> None:
        names, values = (request.POST.getlist(f"{each.name}.{part}") for part in ("name", "value"))
        typed = [(name.strip(), value.strip()) for name, value in zip(names, values, strict=False)]
        each.pairs = [pair for pair in typed if any(pair)]
        each.had = request.POST.getlist(f"{each.name}.had")
        had, there = ({name.lower() for name in names} for names in (each.had, dict(each.pairs)))
        if not all(name and (value or name.lower() in had) for name, value in each.pairs):
            each.errors = ["Type the name and the value of each header."]
        elif had:
            gone = {name: None for name in each.had if name.lower() not in there}
            if changes := gone | {name: value for name, value in each.pairs if value}:
                body |= {each.key: changes, "mcpHeadersMode": "merge"}
        elif each.pairs or not self._partial:
            body[each.key] = dict(each.pairs) or None

    def _read(self, each: Field, request: HttpRequest, body: Json) -> None:
        """Puts the JSON of one field into the body. An empty field that may be absent is left out."""
        if each.kind == "headers":
            self._read_headers(each, request, body)
        elif each.kind == "rows":
            rows, typed = self._read_rows(each, request), request.POST.get(each.name)
            each.value = typed or ""
            if each.look.shape:
                self._read_shape(each, each.look.shape, rows, body)
            elif rows or typed is not None or not each.choices:
                body[each.key] = typed or rows or (None if each.declared.allow_null else [])
        else:
            self._read_text(each, request, body)

    def _read_shape(self, each: Field, shape: Shape, rows: list[Json], body: Json) -> None:
        """Puts the value of the rows into the body, or the JSON that was pasted instead."""
        try:
            value = shape.value_of(rows) or (
                None if each.declared.allow_null else shape.value_of([])
            )
            if each.value.strip():
                if value:
                    raise ValueError("Fill in the rows or paste JSON, but not both.")
                value = value_of("json", each.value)
            body[each.key] = value
        except WrongRow as wrong:
            part = next(part for part in each.rows[wrong.number] if part.key == wrong.name)
            part.errors = [str(wrong)]
        except ValueError as error:
            each.errors = [str(error)]

    def _read_text(self, each: Field, request: HttpRequest, body: Json) -> None:
        name, typed = each.key, request.POST.getlist(each.name)
        text = "\n".join(typed).replace("\r\n", "\n")
        # Browsers send no null character. The API refuses it, and a page can't show it again.
        each.value = text.replace("\0", "")
        declared = each.declared
        if each.kind == "check":
            body[name] = each.value = bool(text)
        elif each.kind in {"list", "choices", "commas"}:
            kind = _kind(declared.child)
            text = text.replace(",", "\n") if each.kind == "commas" else text
            found = [value_of(kind, line) for line in text.split("\n") if line.strip()]
            if each.kind == "choices":
                each.value = found
            body[name] = found or (None if declared.allow_null else found)
        elif not text.strip() and each.kind in _SECRET and self._partial:
            return
        elif not text.strip() and isinstance(declared, serializers.ListField):
            body[name] = None if declared.allow_null else []
        elif text.strip():
            try:
                finder = each.look.finder
                body[name] = finder.id_of(text) if finder else value_of(each.kind, text)
            except ValueError as error:
                each.errors = [str(error)]
        elif declared.allow_null:
            body[name] = None
        elif getattr(declared, "allow_blank", False) or declared.required:
            body[name] = ""

    def _show(self, refused: Refused) -> None:
        self.status = refused.status
        self.errors = list(refused.form)
        by_name = {part.name: part for each in self.fields for part in each.parts}
        for name, messages in refused.fields.items():
            outer = name.split(".")[0]
            if name in by_name:
                by_name[name].errors = messages
            elif (within := name.rpartition(".")[0]) in by_name and within != outer:
                by_name[within].errors = [*by_name[within].errors, *messages]
            elif outer not in by_name:
                self.errors += [f"{_words(name)}: {message}" for message in messages]
        for each in self.fields:
            if any(part.errors for part in each.parts[1:]):
                # The API repeats the error for the whole field. It is shown only beside the field of the row.
                each.errors = []
        self._focus()


def _declared(fields: Mapping[str, Any], name: str) -> Any:
    owner, _, part = name.rpartition(".")
    return fields[owner].fields[part] if owner else fields[name]


def _fields(declared: Mapping[str, Any], looks: Mapping[str, Look], values: Json) -> list[Field]:
    found = []
    for name, look in looks.items():
        owner, _, part = name.rpartition(".")
        known = values.get(owner) if owner else values
        found.append(_field(name, _declared(declared, name), look, known or {}, part))
    some_are_left = any(not each.required and each.kind not in _NEVER_EMPTY for each in found)
    for each in found:
        is_there = each.kind in _NEVER_EMPTY and each.value
        each.marked = each.required and some_are_left and not is_there
    return found


def _nested(body: Json) -> Json:
    """Moves fields with names such as `summary.at` into objects (`summary`), and returns the body."""
    for name in [name for name in body if "." in name]:
        owner, _, part = name.partition(".")
        value = body.pop(name)
        if owner not in body:
            body[owner] = {} if value else None
        if body[owner] is not None:
            body[owner][part] = value
    return body


def _field(name: str, declared: Any, look: Look, known: Json, part: str) -> Field:
    """Returns a field with its present value from `known`. The form of a new row begins with the API's defaults."""
    choices = list(look.choices) or [
        (str(value), str(said)) for value, said in getattr(declared, "choices", {}).items()
    ]
    of_list = isinstance(declared, serializers.ListField)
    kind = look.kind or (("choices" if of_list else "choice") if choices else _kind(declared))
    # If a field has no label, DRF makes one from its name, but does not see that `maxRetries` is two words.
    has_label = declared.label != declared.field_name.replace("_", " ").capitalize()
    may_be_left = not declared.required and declared.default in (serializers.empty, None)
    if kind == "choice" and may_be_left and not look.choices:
        choices = [("", "–"), *choices]
    bounds = {
        attribute: value
        for attribute, of in (
            ("maxlength", "max_length"),
            ("min", "min_value"),
            ("max", "max_value"),
        )
        if (value := getattr(declared, of, None)) is not None
    }
    initial = getattr(declared, "default", None)
    value = known.get(part, None if initial is serializers.empty else initial)
    typed = look.finder.name_of(str(value)) if look.finder and value else value
    made = Field(
        name=name,
        label=look.label or (declared.label if has_label else _words(name)),
        help=look.help or declared.help_text or "",
        look=look,
        kind=kind,
        required=look.required
        or (
            declared.required
            and "." not in name
            and not getattr(declared, "allow_blank", False)
            and kind not in {"check", "choices", "list", "secrets", "value"}
        ),
        choices=choices,
        bounds=bounds,
        declared=declared,
        key=name,
        value=value if kind == "choices" else text_of(typed, kind),
    )
    if kind == "headers":
        made.had = known.get(f"{name.removesuffix('s')}Names") or []
        made.pairs = [(each, "") for each in made.had] or [*(value or {}).items()]
    if kind == "rows":
        rows = value if isinstance(value, list) else []
        made.value = "" if rows else value or ""
        if look.shape:
            found = [] if value is None else look.shape.rows_of(value)
            made.value = text_of(value, "json") if found is None else ""
            rows = [{}] if found == [] else found or []
        made.put([_row(made, each) for each in rows])
    return made


def _row(of: Field, known: Json) -> list[Field]:
    """Returns the fields of one row, under their names in its object."""
    if shape := of.look.shape:
        return _fields(shape.Row().fields, shape.looks, known)
    declared = getattr(of.declared, "where", of.declared)
    return _fields(declared.child.fields, of.look.looks, known)


_KINDS: tuple[tuple[type, str], ...] = (
    (serializers.BooleanField, "check"),
    (serializers.IntegerField, "number"),
    (serializers.EmailField, "email"),
    (TimezoneField, "zone"),
    (serializers.DateTimeField, "time"),
    (serializers.ListField, "list"),
    (serializers.JSONField, "json"),
)


def _kind(declared: Any) -> str:
    if given := declared.style.get("input_type"):
        return str(given)
    return next((kind for of, kind in _KINDS if isinstance(declared, of)), "text")


def _words(name: str) -> str:
    """Returns a field's name as people read it: `Max retries` for `maxRetries`."""
    return "".join(f" {c.lower()}" if c.isupper() else c for c in name).capitalize()
