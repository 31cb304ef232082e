"""Why TLS failed: OpenSSL's errors in the words of SPEC 4, each with what to look at.

The one place where an `ssl.SSLError` is read. Knows no file and no socket.
"""

from __future__ import annotations

import re
import ssl
from typing import Final

from sidecar.core.errors import Reason

_ALERT: Final = re.compile(r"(?:SSLV3|TLSV1|TLSV13)_ALERT_([A-Z_0-9]+)")
_ALERT_IN_TEXT: Final = re.compile(r"(?:sslv3|tlsv1|tlsv13) alert ([a-z0-9 ]+)")
_ALERTS_WITHOUT_THE_WORD: Final = {
    "TLSV1_UNRECOGNIZED_NAME": "unrecognized_name",
    "TLSV1_UNSUPPORTED_EXTENSION": "unsupported_extension",
    "TLSV1_CERTIFICATE_UNOBTAINABLE": "certificate_unobtainable",
    "TLSV1_BAD_CERTIFICATE_STATUS_RESPONSE": "bad_certificate_status_response",
    "TLSV1_BAD_CERTIFICATE_HASH_VALUE": "bad_certificate_hash_value",
}
"""OpenSSL's names of alerts that do not say that they are one."""
_ABOUT_OUR_CERTIFICATE: Final = frozenset({
    "bad_certificate", "unsupported_certificate", "certificate_revoked", "certificate_expired", "certificate_unknown",
    "unknown_ca", "certificate_required", "access_denied",
})  # fmt: skip
"""RFC 8446 6.2. A server sends them only for what a client has shown, or not shown."""
_NO_TLS: Final = frozenset(
    {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "UNKNOWN_PROTOCOL"}
)
"""What came is no record of TLS."""
_NO_COMMON_VERSION: Final = frozenset({"UNSUPPORTED_PROTOCOL", "NO_PROTOCOLS_AVAILABLE"})
_HINTS: Final = {
    "protocol_version": "no version of TLS is spoken on both sides",
    "no_application_protocol": "no protocol is offered and taken (ALPN)",
    "unrecognized_name": "it knows no certificate for the name asked for (SNI)",
    "certificate_required": "it wants a client certificate: give `tls: {certificate: …}`",
    "unknown_ca": "it does not trust the CA of the certificate shown to it",
    "handshake_failure": "no cipher or certificate suits both sides, or it wants a client certificate",
}
_VERDICTS: Final = {
    9: "it is not valid yet",
    10: "it has expired",
    18: "it is self-signed, by nobody who is trusted here",
    19: "its chain ends in a CA that is not trusted here",
    20: "its CA is not trusted here, or a certificate of its chain is missing",
    21: "its CA is not trusted here, or a certificate of its chain is missing",
    26: "it is not made for this purpose (extended key usage)",
}
"""X509_V_ERR_… of OpenSSL's x509_vfy.h; all others are told in its own words."""


class TlsFailed(Exception):
    """No connection, or none any more; `reason` says why, the text is for the log."""

    def __init__(self, reason: Reason, detail: str, *, is_ours: bool = False) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.is_ours = is_ours
        """It says something of our own certificate, and nothing of the other side."""


class TlsCut(TlsFailed):
    """The other side closed without saying that it does (RFC 8446 6.1): what came last may not be all."""

    def __init__(self, detail: str = "closed without the end of TLS (close_notify)") -> None:
        super().__init__(Reason.TLS_PROTOCOL, detail)


def failure(error: ssl.SSLError) -> TlsFailed:
    """What an error of OpenSSL stands for."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return TlsFailed(Reason.TLS_CERTIFICATE, f"certificate refused: {verdict(error)}")
    alert = alert_in(error)
    if alert is not None:
        hint = _HINTS.get(alert)
        detail = f"the other side sent the alert {alert}" + (f": {hint}" if hint else "")
        return TlsFailed(Reason.TLS_ALERT, detail, is_ours=alert in _ABOUT_OUR_CERTIFICATE)
    if error.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return TlsFailed(Reason.TLS_CERTIFICATE, "certificate refused: none was shown, and one is required")
    if error.reason in _NO_TLS:
        return TlsFailed(Reason.TLS_PROTOCOL, "the other side does not speak TLS there")
    if error.reason in _NO_COMMON_VERSION:
        return TlsFailed(Reason.TLS_PROTOCOL, _HINTS["protocol_version"])
    return TlsFailed(Reason.TLS_PROTOCOL, f"TLS failed: {_words(error)}")


def verdict(error: ssl.SSLCertVerificationError) -> str:
    """Why a certificate was refused."""
    message = error.verify_message.rstrip(".")
    of_name = message.partition("certificate is not valid for ")[2]
    if of_name:
        return f"it is not for {of_name}"
    return _VERDICTS.get(error.verify_code) or message.lower()


def alert_in(error: ssl.SSLError) -> str | None:
    """The name of the alert that the other side has sent (RFC 8446 6.2); None if it sent none."""
    reason = getattr(error, "reason", None) or ""
    if reason in _ALERTS_WITHOUT_THE_WORD:
        return _ALERTS_WITHOUT_THE_WORD[reason]
    found = _ALERT.search(reason)
    if found is not None:
        return found[1].lower()
    found = _ALERT_IN_TEXT.search(str(error))
    return found[1].strip().replace(" ", "_") if found is not None else None


def _words(error: ssl.SSLError) -> str:
    reason = getattr(error, "reason", None)
    return str(reason).replace("_", " ").lower() if reason else "unknown error"
