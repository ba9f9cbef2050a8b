"""Addresses of backends: their passwords change while a role runs, their places do not.

Those over HTTP may be reached through a proxy, which the environment names.
"""

import re

# The part in front of an @, and the passwords in the query: Redis' own, Sentinel's, and
# that of a private key.
_CREDENTIALS = re.compile(
    r"(?<=//)[^/?#]*@|(?<=[?&])(?:(?:sentinel_)?(?:username|password)|ssl_password)=[^&#,]*&?"
)
PROXY_UNFIT = (
    "the proxy of HTTP_PROXY, HTTPS_PROXY or ALL_PROXY cannot be used: it begins with http://, not "
    "socks5://; NO_PROXY names the hosts that are reached without it"
)


class Address:
    """The URL of a backend, as it is now: adapters read `url` each time they connect."""

    def __init__(self, url: str) -> None:
        self.url = url

    @classmethod
    def of(cls, url: "Url") -> "Address":
        """Return an address as it is, and one whose password stays for a plain URL."""
        return url if isinstance(url, Address) else cls(url)

    def replace(self, url: str) -> bool:
        """Take the users and passwords of `url`; False, and no change, if it is another place.

        Half of the connections would lead to one backend, and half to another.
        """
        if _place_of(url) != _place_of(self.url):
            return False
        self.url = url
        return True


Url = str | Address
"""An address as adapters take it: a URL, or one whose password may change meanwhile."""


def _place_of(url: str) -> str:
    return _CREDENTIALS.sub("", url).rstrip("?&")
