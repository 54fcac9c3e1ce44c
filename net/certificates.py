"""Certificates of a program's own authority, for tests, for development, and for a handful of machines.

    authority = make_authority("certificates")                       # certificates/ca.pem, certificates/ca.key
    tls = make_certificate("certificates", "alpha", ["alpha", "10.0.0.7"])

Whoever has `ca.key` can make more certificates: it belongs to no machine that runs nodes. Needs the extra "tls".
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Final

from net.errors import BadCredentials
from net.security import Tls, check_private, write_private

try:
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
except ImportError:
    raise ImportError(
        'to make certificates needs cryptography; install it with: pip install "tasklets[tls]"'
    ) from None

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

AUTHORITY_DAYS: Final = 3650
CERTIFICATE_DAYS: Final = 365
CLOCK_SLACK: Final = datetime.timedelta(minutes=10)  # by which another machine's clock may be behind
LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")


def make_authority(folder: str | PathLike[str], *, days: float = AUTHORITY_DAYS) -> Path:
    """Make an authority in a folder: `ca.pem`, which every node needs, and `ca.key`, which signs. Returns `ca.pem`.

    Raises BadCredentials when there is one already, or the files cannot be written.
    """
    target = Path(folder)
    try:
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise BadCredentials(f"the folder {target} cannot be made: {error.strerror}") from None
    key = ec.generate_private_key(ec.SECP256R1())
    name = _named("tasklets authority")
    builder = _builder(name, name, key.public_key(), days).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    builder = builder.add_extension(_usage(signs=True), critical=True)
    _write_key(target / "ca.key", key)
    _write_certificate(target / "ca.pem", builder.sign(key, hashes.SHA256()))
    return target / "ca.pem"


def make_certificate(
    folder: str | PathLike[str], name: str, hosts: Sequence[str] = (), *, days: float = CERTIFICATE_DAYS
) -> Tls:
    """Make a certificate of the folder's authority: `NAME.pem` and `NAME.key`. Returns them for use.

    `hosts` are the host names and IP addresses by which others connect to the node that shows it; with none given,
    this machine's own. Raises BadCredentials.
    """
    target = Path(folder)
    if not name or name in ("ca", ".", "..") or not all(char.isalnum() or char in "._-" for char in name):
        raise BadCredentials(
            f"{name!r} is no name for a certificate; use letters, digits, and . _ - (and not ca)"
        )
    authority, signer = _load_authority(target)
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(_named(name), authority.subject, key.public_key(), days)
    for extension, critical in (
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_usage(signs=False), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), False),
        (x509.SubjectAlternativeName([_host(host) for host in hosts or LOOPBACK]), False),
        (_authority_identifier(authority), False),
    ):
        builder = builder.add_extension(extension, critical=critical)
    _write_key(target / f"{name}.key", key)
    _write_certificate(target / f"{name}.pem", builder.sign(signer, hashes.SHA256()))
    return Tls(target / "ca.pem", target / f"{name}.pem", target / f"{name}.key")


def _load_authority(folder: Path) -> tuple[x509.Certificate, CertificateIssuerPrivateKeyTypes]:
    try:
        check_private(folder / "ca.key")
        certificate = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
        key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
    except OSError as error:
        raise BadCredentials(f"the authority in {folder} cannot be read: {error}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadCredentials(f"{folder} holds no authority made here: {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise BadCredentials(f"{folder}/ca.key is not the key of {folder}/ca.pem")
    return certificate, key


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey, days: float
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    end = now + datetime.timedelta(days=days)
    return (
        x509.CertificateBuilder(subject_name=subject, issuer_name=issuer, public_key=public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, end) - CLOCK_SLACK)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _authority_identifier(authority: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    identifier = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        pass
    try:
        return x509.DNSName(text)
    except ValueError:
        raise BadCredentials(f"{text!r} is no host name; write other alphabets in their xn-- form") from None


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    write_private(
        path,
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    )


def _write_certificate(path: Path, certificate: x509.Certificate) -> None:
    write_private(path, certificate.public_bytes(serialization.Encoding.PEM))
    path.chmod(0o644)  # it is shown to everybody anyway
