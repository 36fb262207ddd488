"""Makes certificates for servers of tests that speak TLS."""

import subprocess
from pathlib import Path

from testing.processes.programs import program


def self_signed(directory: Path, host: str = "DNS:localhost") -> Path:
    """Makes a certificate for `host`, a subjectAltName of OpenSSL, and signs it with its own key.

    Returns a file in `directory` that has the certificate and its key, in PEM. Clients that take it for a known
    authority trust it for that host, for a day.
    """
    key, certificate = directory / "key.pem", directory / "certificate.pem"
    subprocess.run(  # noqa: S603
        [program("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
         "-days", "1", "-subj", "/CN=Test server", "-addext", f"subjectAltName={host}",
         "-addext", "keyUsage=critical,digitalSignature,keyCertSign", "-keyout", key, "-out", certificate],
        check=True,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    both = directory / "server.pem"
    both.write_text(certificate.read_text() + key.read_text())
    return both
