"""The certificate that Edge shows to its clients, ready to shake hands with.

In: the paths of a certificate and its key. Out: an SSL context, or one sentence about what is wrong with the files.
Must not: quote them.
"""

import errno
import ssl
from pathlib import Path


def server_context(certificate: str, key: str) -> ssl.SSLContext:
    """A context for TLS 1.2 and newer, and HTTP/1.1 in it.

    Raises:
        OSError: The files cannot be used; its ``strerror`` says which, and why.
    """
    for name, path, mark in (("tls_cert", certificate, "CERTIFICATE"), ("tls_key", key, "PRIVATE KEY")):
        try:
            data = Path(path).read_bytes()
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "not a path"
            raise OSError(errno.EINVAL, f"the file of server.{name} cannot be read: {why}") from None
        if f"{mark}-----".encode() not in data:
            raise OSError(errno.EINVAL, f"the file of server.{name} holds no PEM {mark.lower()}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key, password=_no_passphrase)
    except ssl.SSLError as error:
        raise OSError(errno.EINVAL, _fault(error)) from None
    except ValueError as error:
        raise OSError(errno.EINVAL, str(error)) from None
    return context


def _no_passphrase() -> str:
    """Without this OpenSSL would ask for one on the terminal, and wait."""
    raise ValueError("the key of server.tls_key has a passphrase, which Edge cannot be given: store it without one")


def _fault(error: ssl.SSLError) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return "the key of server.tls_key is not the one of the certificate in server.tls_cert"
    return f"OpenSSL does not take the certificate of server.tls_cert and its key: {error.reason or 'they are damaged'}"
