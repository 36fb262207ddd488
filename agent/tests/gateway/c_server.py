"""An honest MCP server that reads JSON as servers in C do: by Debian's libjson-c, for which a name ends at NUL."""

from __future__ import annotations

import ctypes
import ctypes.util
from collections.abc import Iterator
from typing import Any

from testing.processes.programs import lacking

from .servers import Exchange, McpServer

PACKAGE = "libjson-c5"
# The numbers of these types in the library.
_AN_OBJECT, _AN_ARRAY = 4, 5


def library() -> ctypes.CDLL:
    """Return the library. If it is missing, the test is skipped, and in CI it fails."""
    found = ctypes.util.find_library("json-c")
    if found is None:
        lacking(f"There is no libjson-c here: install {PACKAGE}, or run bin/test --all as root.")
    loaded = ctypes.CDLL(found)
    pointer, text, number, size = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_size_t
    for name, result, *arguments in (
        ("json_tokener_parse", pointer, text),
        ("json_object_get_type", number, pointer),
        ("json_object_get_string", text, pointer),
        ("json_object_object_get_ex", number, pointer, text, ctypes.POINTER(pointer)),
        ("json_object_array_length", size, pointer),
        ("json_object_array_get_idx", pointer, pointer, size),
        ("json_object_put", number, pointer),
    ):
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    return loaded


class CServer(McpServer):
    """`made` has the calls that the server has made, each by its tool and arguments, as the library reads them."""

    def __init__(self) -> None:
        super().__init__()
        self._library = library()
        self.made: list[tuple[str, str]] = []
        self.ways["*"] = self._take

    def _take(self, exchange: Exchange) -> None:
        self.made += self.calls_in(exchange.body)
        if isinstance(exchange.message, (dict, list)) or not exchange.body:
            self.behave(exchange)
        else:
            exchange.json({"error": "what is this?"}, 400)

    def calls_in(self, body: bytes) -> list[tuple[str, str]]:
        """Return the calls that the library reads in a body, which may be a batch."""
        read = self._library.json_tokener_parse(body)
        try:
            found = [read]
            if read and self._library.json_object_get_type(read) == _AN_ARRAY:
                length = self._library.json_object_array_length(read)
                found = [self._library.json_object_array_get_idx(read, n) for n in range(length)]
            return [call for one in found for call in self._calls_in(one)]
        finally:
            self._library.json_object_put(read)

    def _calls_in(self, message: Any) -> Iterator[tuple[str, str]]:
        if self._text(self._member(message, b"method")) == "tools/call":
            params = self._member(message, b"params")
            name, arguments = (self._member(params, one) for one in (b"name", b"arguments"))
            yield self._text(name), self._text(arguments)

    def _member(self, value: Any, name: bytes) -> Any:
        found = ctypes.c_void_p()
        is_object = value and self._library.json_object_get_type(value) == _AN_OBJECT
        there = is_object and self._library.json_object_object_get_ex(
            value, name, ctypes.byref(found)
        )
        return found.value if there else None

    def _text(self, value: Any) -> str:
        text = self._library.json_object_get_string(value) if value else None
        return (text or b"").decode(errors="replace")
