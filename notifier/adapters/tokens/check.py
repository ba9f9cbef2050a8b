"""Asks a token issuer for its keys. See `notifier.core.findings`."""

import ssl

import httpx

from notifier.adapters.tokens.issuer import ForeignMetadata, IssuerKeys
from notifier.core.errors import Invalid
from notifier.core.findings import PATIENCE, TOO_LATE, Finding

_SUBJECT = "token issuer"
_EXPIRED, _OTHER_HOST = 10, 62  # OpenSSL's X509_V_ERR_…


async def check_issuer(keys: IssuerKeys, setting: str) -> Finding:
    """Return whether the issuer's keys can be had, and why not; `setting` names its address.

    The keys are those of a gateway; they are closed afterwards.
    """
    try:
        found, _ = await keys.fetch(PATIENCE)
    except (httpx.HTTPError, Invalid, ValueError, OSError) as error:
        return Finding("error", _SUBJECT, *_explained(error, keys.place, setting))
    finally:
        await keys.close()
    algorithms = sorted({name for key in found for name in key.algorithms})
    number = f"{len(found)} key{'s' if len(found) > 1 else ''}"
    return Finding("ok", _SUBJECT, f"{keys.place} publishes {number}: {', '.join(algorithms)}")


def _explained(error: Exception, place: str, setting: str) -> tuple[str, str]:
    """Say what is wrong, and how it is mended."""
    if (refusal := _refusal_of(error)) is not None:
        return _distrust(refusal, place, setting)
    match error:
        case TimeoutError() | httpx.TimeoutException():
            return f"{place} gave {TOO_LATE}", f"let this machine reach it, or correct {setting}"
        case httpx.HTTPError() | OSError():
            return f"{place} is out of reach: {error}", f"start it, or correct {setting}"
        case Invalid():
            text = f"{place} does not answer as an issuer does: {error}"
            return text, f"correct {setting}: it leads to something else"
        case ForeignMetadata():
            mend = "set NOTIFIER_JWT_ISSUER to the name that its metadata has, if that is yours"
            return f"{place}: {error}", f"{mend}, or correct {setting}"
        case _:
            return f"{place}: {error}", f"correct {setting}, or mend the issuer"


def _refusal_of(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error
        error = error.__cause__ or error.__context__
    return None


def _distrust(error: ssl.SSLCertVerificationError, place: str, setting: str) -> tuple[str, str]:
    if error.verify_code == _EXPIRED:
        return f"{place}: its certificate has expired", "renew it at the issuer; and set the clock"
    if error.verify_code == _OTHER_HOST:
        text = f"{place} has the certificate of another host: {error.verify_message}"
        return text, f"name the host of its certificate in {setting}"
    text = f"{place} has a certificate of an authority that is not trusted here"
    mend = "name the file of a private authority in SSL_CERT_FILE; public ones stay trusted"
    return f"{text}: {error.verify_message}", mend
