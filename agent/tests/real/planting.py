"""Plants a secret in every place of a machine that a run must not read."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from .working import Machine, Started


def secret(place: str) -> str:
    """Return a new secret for this place."""
    return f"planted-{place}-{uuid4().hex}"


class Field:
    """The places of one machine that hold a secret: `files` are those that have a path."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.files: list[Path] = []

    def plant_before_the_start(self) -> None:
        """Plant in the account's files, in claude's own and in the worker's."""
        home, state = self._machine.home, self._machine.config.parent
        self._write(home / "planted.txt", "{0}")
        self._write(home / ".ssh" / "id_planted", "{0}")
        token = {"accessToken": "sk-ant-oat01-{0}", "expiresAt": 10**13, "scopes": []}
        self._write(home / ".claude" / ".credentials.json", {"claudeAiOauth": token})
        server = {"type": "http", "url": "http://127.0.0.1:9/", "headers": {"X-Key": "{0}"}}
        self._write(home / ".claude.json", {"mcpServers": {"own": server}})
        self._write(home / ".claude" / "settings.json", {"env": {"PLANTED_SETTING": "{0}"}})
        self._write(home / ".claude" / "history.jsonl", {"display": "{0}"})
        session = home / ".claude" / "projects" / "-tmp-other" / f"{uuid4()}.jsonl"
        self._write(session, {"type": "user", "message": {"role": "user", "content": "{0}"}})
        runs = state / "runs" / self._machine.worker_id
        self._write(runs / f"{uuid4()}.ndjson", {"payload": "{0}"})
        self._write(self._machine.temporary / "planted.txt", "{0}")
        self._write(self._machine.temporary / "CLAUDE.md", "{0}")
        self._picture(self._machine.temporary / "planted.png")
        self.files.append(self._machine.config)

    def plant_beside(self, other: Started) -> None:
        """Plant in the worker's state and in the directory of another run, which is being executed."""
        state = self._machine.config.with_name("worker.state") / self._machine.worker_id
        (held,) = (json.loads(path.read_text()) for path in (state / "held").glob("*.json"))
        root = Path(held["scratch"])
        self._write(state / "outcomes" / "planted.txt", "{0}")
        self._write(root / "work" / "planted.txt", "{0}")
        self._write(root / "tmp" / "planted.txt", "{0}")
        url = json.loads((root / "mcp.json").read_text())["mcpServers"]["trigger"]["url"]
        self._machine.secrets["the gateway of another run"] = max(url.split("/"), key=len)
        self._machine.secrets["the header of another run"] = other.place.secret
        self.files += [root / "mcp.json", Path(f"/proc/{held['pid']}/environ")]
        self.files += [path for path in root.rglob("*") if path.is_socket()]

    @contextmanager
    def socket(self) -> Iterator[None]:
        """Tell a secret to everybody who connects to a socket in the temporary directory, for the time of the block."""
        path = self._machine.temporary / "planted.sock"
        told = self._new(path.name)

        def tell() -> None:
            with contextlib.suppress(OSError):
                while True:
                    caller, _ = listener.accept()
                    with caller:
                        caller.sendall(f"{told}\n".encode())

        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            self.files.append(path)
            thread = threading.Thread(target=tell, daemon=True)
            thread.start()
            try:
                yield
            finally:
                listener.shutdown(socket.SHUT_RDWR)
                thread.join()

    def _new(self, place: str) -> str:
        return self._machine.secrets.setdefault(f"{place} {uuid4().hex}", secret(place))

    def _write(self, path: Path, content: str | dict[str, object]) -> None:
        text = content if isinstance(content, str) else json.dumps(content)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("{0}", self._new(path.name)))
        self.files.append(path)

    def _picture(self, path: Path) -> None:
        """Write a picture of one point, whose comment is a secret. Whoever reads the picture has both."""
        comment = b"Comment\0" + self._new(path.name).encode()
        head = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
        pieces = (
            (b"IHDR", head),
            (b"tEXt", comment),
            (b"IDAT", zlib.compress(b"\0\0")),
            (b"IEND", b""),
        )
        content = b"\x89PNG\r\n\x1a\n" + b"".join(_piece(*piece) for piece in pieces)
        path.write_bytes(content)
        # The beginning is the same however much of it a program sends.
        self._machine.secrets[path.name] = base64.b64encode(content[:24]).decode()
        self.files.append(path)


def _piece(kind: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + check
