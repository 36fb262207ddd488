"""Makes certificates for servers of tests that speak TLS."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

_DAY = timedelta(days=1)


def self_signed(directory: Path, host: str = "localhost") -> Path:
    """Makes a certificate for `host`, a name or an address, and signs it with its own key.

    Returns a file in `directory` that has the certificate and its key, in PEM. Clients that take it for a known
    authority trust it for that host, for a day.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Test server")])
    is_name = host[-1].isalpha()
    alternative = x509.DNSName(host) if is_name else x509.IPAddress(ip_address(host))
    now = datetime.now(UTC)
    usage = dict.fromkeys(
        (
            *("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
            *("crl_sign", "encipher_only", "decipher_only"),
        ),
        False,
    )
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + _DAY)
        .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=True, key_cert_sign=True, **usage), critical=True
        )
        # Newer versions of OpenSSL want these two in an authority.
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    text = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    both = directory / "server.pem"
    both.write_bytes(certificate.public_bytes(pem) + key.private_bytes(pem, *text))
    return both
