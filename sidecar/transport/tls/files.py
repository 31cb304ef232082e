"""PEM files → an `ssl.SSLContext`, checked before anybody uses it, or a message that names file and remedy.

A pair is tried out by a handshake with itself, in memory: key and certificate fit, each certificate is signed by the
next, none has expired, and it is made for its side. It is loaded into a new context each time, never into one that is
in use: a pair that does not fit would break that one (measured). Reads files, so not for the event loop.
"""

from __future__ import annotations

import os
import re
import ssl
import stat
from typing import Final

from sidecar.core.dataclass import dataclass
from sidecar.core.snapshot import CertificateFiles, TlsVersion
from sidecar.transport.tls.failures import verdict
from sidecar.transport.tls.names import Certificate

MAX_FILE_BYTES: Final = 1024 * 1024
"""Of a PEM file; a bundle of all public CAs has a quarter of it."""
_CERTIFICATE: Final = re.compile(r"-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----")
_VERSIONS: Final = {TlsVersion.TLS_1_2: ssl.TLSVersion.TLSv1_2, TlsVersion.TLS_1_3: ssl.TLSVersion.TLSv1_3}
TICKETS: Final = 1
"""For each handshake: a session that is resumed brings the next one. A second ticket, which OpenSSL would make too,
costs 17 µs of 270, and serves clients alone that open several connections by one that has gone before."""
_OTHERS_MAY_READ: Final = stat.S_IROTH
_TURNS: Final = 8
"""Each side's of a handshake in memory; TLS 1.2 takes three."""


class TlsFileError(OSError):
    """A file cannot be used; the text names it and the remedy. Never what it holds."""


class MissingFile(TlsFileError):
    """It is not there, or not yet: `check` may run where no secrets are."""


@dataclass(frozen=True, slots=True)
class OwnCertificate:
    """A pair that was loaded and found good."""

    files: CertificateFiles
    certificate: Certificate
    """Of the leaf, as `getpeercert()` gives it."""
    is_key_open: bool = False
    """Users other than its owner and group may read the key's file."""

    @property
    def expires(self) -> float:
        """When it ends, in seconds since 1970."""
        return ssl.cert_time_to_seconds(self.certificate["notAfter"])


def client_context() -> ssl.SSLContext:
    """For connections that we open: the chain is verified, and the name where one is given."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.hostname_checks_common_name = False
    return _bounded(context)


def server_context(minimum: TlsVersion = TlsVersion.TLS_1_2) -> ssl.SSLContext:
    """For connections that we accept, with ticket keys of its own; no client is asked for a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    context.num_tickets = TICKETS
    return _bounded(context, minimum)


def _bounded(context: ssl.SSLContext, minimum: TlsVersion = TlsVersion.TLS_1_2) -> ssl.SSLContext:
    context.minimum_version = _VERSIONS[minimum]
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    return context


def trust(context: ssl.SSLContext, file: str | None) -> None:
    """Let `context` trust the CAs of a PEM file; None: those of the system, else `certifi`'s.

    Raises:
        TlsFileError
    """
    if file is None:
        _trust_system(context)
        return
    found = certificates_in(file)
    try:
        context.load_verify_locations(cadata="\n".join(found))
    except ssl.SSLError as error:
        raise TlsFileError(f"{file}: a certificate in it cannot be read ({error.reason or error})") from error
    # What is named is trusted, also if it is not the last of its chain.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN


def _trust_system(context: ssl.SSLContext) -> None:
    paths = ssl.get_default_verify_paths()
    if paths.cafile or (paths.capath and os.listdir(paths.capath)):
        context.load_default_certs()
        return
    try:
        import certifi
    except ImportError:
        remedy = "install the package ca-certificates, or certifi, or name a `ca`"
        raise TlsFileError(f"this system has no certificates of CAs: {remedy}") from None
    context.load_verify_locations(certifi.where())


def load_pair(context: ssl.SSLContext, files: CertificateFiles, *, is_server: bool) -> OwnCertificate:
    """Put a certificate and its key into a context that nobody uses yet, once they have been tried out.

    Args:
        is_server: the side that they are for.

    Raises:
        TlsFileError
    """
    chain = certificates_in(files.chain)
    if "PRIVATE KEY-----" not in _text(files.key):
        raise TlsFileError(f"{files.key}: there is no private key in it (a PEM block `PRIVATE KEY`)")
    certificate = _tried_out(files, chain[-1], is_server=is_server)
    _load(context, files)
    return OwnCertificate(files, certificate, _is_open(files.key))


class _Encrypted(Exception):
    """Of a key that wants a password."""


def _no_password() -> str:
    raise _Encrypted


def _load(context: ssl.SSLContext, files: CertificateFiles) -> None:
    try:
        context.load_cert_chain(files.chain, files.key, password=_no_password)
    except _Encrypted:
        remedy = "write it without a password (`openssl pkey -in … -out …`)"
        raise TlsFileError(f"{files.key}: the key is encrypted: {remedy}") from None
    except ssl.SSLError as error:
        message = f"{files.chain} with {files.key}: cannot be loaded ({error.reason or 'not a known form'})"
        if error.reason == "KEY_VALUES_MISMATCH" or error.reason == "KEY_TYPE_MISMATCH":
            message = f"{files.key}: the key is not that of the certificate in {files.chain}"
        raise TlsFileError(message) from None
    except OSError as error:
        raise TlsFileError(f"{files.chain} with {files.key}: {error.strerror or error}") from error


def _tried_out(files: CertificateFiles, last: str, *, is_server: bool) -> Certificate:
    """The leaf, as a peer sees it that trusts the last certificate of the file."""
    server, client = server_context(), client_context()
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    _load(server, files)
    if not is_server:
        _load(client, files)
    judge = client if is_server else server
    try:
        judge.verify_mode = ssl.CERT_REQUIRED
        judge.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        judge.load_verify_locations(cadata=last)
        return _seen(server, client, is_server=is_server)
    except ssl.SSLCertVerificationError as error:
        raise TlsFileError(f"{files.chain}: {_why(error)}") from None
    except ValueError as error:
        raise TlsFileError(f"{files.chain}: a name in the certificate cannot be read") from error
    except ssl.SSLError as error:
        raise TlsFileError(f"{files.chain}: a handshake with it fails ({error.reason or error})") from None


def _seen(server: ssl.SSLContext, client: ssl.SSLContext, *, is_server: bool) -> Certificate:
    """The certificate of one side as the other sees it, after a handshake in memory.

    Raises:
        ssl.SSLError
    """
    forth, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    caller = client.wrap_bio(back, forth)
    called = server.wrap_bio(forth, back, server_side=True)
    for _ in range(_TURNS):
        for side in (caller, called):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    found = (caller if is_server else called).getpeercert()
    assert found, "it was verified"
    return found


def _why(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code in (20, 21):
        return "its certificates do not lead from one to the next: write the leaf first, then who signed it"
    return f"the certificate cannot be used: {verdict(error)}"


def certificates_in(file: str) -> list[str]:
    """The PEM blocks of a file, one at least.

    Raises:
        TlsFileError
    """
    found = _CERTIFICATE.findall(_text(file))
    if not found:
        raise TlsFileError(f"{file}: there is no certificate in it (a PEM block `CERTIFICATE`)")
    return found


def _text(file: str) -> str:
    try:
        with open(file, "rb", opener=_at_once) as opened:
            if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
                raise TlsFileError(f"{file}: it is no regular file")
            data = opened.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError as error:
        raise MissingFile(f"{file}: there is no such file") from error
    except TlsFileError:
        raise
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise TlsFileError(f"{file}: cannot be read: {reason}") from error
    if len(data) > MAX_FILE_BYTES:
        raise TlsFileError(f"{file}: it has more than {MAX_FILE_BYTES} bytes")
    return data.decode("latin-1")  # what stands between the blocks may be anything


def _at_once(name: str, flags: int) -> int:
    """A named pipe would be waited for until somebody writes to it."""
    return os.open(name, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def _is_open(file: str) -> bool:
    """Whether everybody on this system may read it. A group may: Kubernetes' `fsGroup` works that way."""
    try:
        return bool(os.stat(file).st_mode & _OTHERS_MAY_READ)
    except OSError:
        return False
