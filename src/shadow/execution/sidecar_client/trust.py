"""What TLS failed with, in words that say what to do. Nothing was sent by then."""

import ssl

from shadow.core.errors import Denied

_REASONS = {
    9: "not_yet_valid",
    10: "expired",
    18: "unknown_authority",  # signed by itself
    19: "unknown_authority",  # the authority at the end of the chain is not known
    20: "unknown_authority",
    21: "unknown_authority",
    62: "other_name",
    64: "other_name",  # of an IP address
}
"""By OpenSSL's code of verification (``X509_V_ERR_…``)."""
_MENDS = {
    "expired": "Its certificate has to be renewed there; see also that this host's clock is right.",
    "not_yet_valid": "See that this host's clock is right.",
    "unknown_authority": "If it is signed by an authority of your own, name that one's file: SSL_CERT_FILE=/path/ca.pem.",
    "other_name": "Use the name that its certificate is made for.",
}


class Untrusted(Denied):
    """The server does not prove that it is the one that was asked for. ``details["reason"]``: ``expired``,
    ``not_yet_valid``, ``unknown_authority``, ``other_name``, ``no_tls`` or ``certificate``."""

    code = "untrusted"


def untrusted(error: Exception, host: str) -> Untrusted:
    """For a certificate that does not show that it is ``host`` who answers."""
    code, told = (
        (error.verify_code, error.verify_message) if isinstance(error, ssl.SSLCertVerificationError) else (0, "")
    )
    reason = _REASONS.get(code, "certificate")
    return Untrusted(
        f"The certificate of {host} is not to be trusted: {told.rstrip('.') or error}.",
        mend=_MENDS.get(reason, "Ask whoever runs the server."),
        details={"reason": reason},
    )


def is_no_tls(error: OSError) -> bool:
    """Whether somebody answered, and not as TLS does; a handshake that was only cut may do better the next time."""
    return isinstance(error, ssl.SSLError) and not isinstance(
        error, ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError
    )


def no_tls(host: str, port: int | None) -> Untrusted:
    return Untrusted(
        f"What answers at {host}:{port} does not speak TLS as this host does.",
        mend="See that the port is the one for https.",
        details={"reason": "no_tls"},
    )
