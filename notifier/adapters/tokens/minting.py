"""Makes tokens, for `notifier dev`, `notifier token` and tests."""

from collections.abc import Sequence
from time import time
from typing import Any

import jwt

from notifier.adapters.tokens.keys import key_of_secret
from notifier.core.names import checked_name


def mint(  # noqa: PLR0913  # one argument for each claim
    secret: str,
    user: str,
    *,
    topics: Sequence[str],
    issuer: str | None,
    audience: str | None,
    lifetime: float,
    user_claim: str = "sub",
    topics_claim: str = "topics",
    publish: Sequence[str] = (),
    presence: Sequence[str] = (),
) -> str:
    """Make a token for `lifetime` seconds from now, signed with HS256.

    Raises Invalid for a malformed user id, and ValueError for a secret that is too short.
    """
    key_of_secret(secret)
    now = int(time())
    claims: dict[str, Any] = {
        user_claim: checked_name(user, "user"),
        "iat": now,
        "exp": now + int(lifetime),
        "iss": issuer,
        "aud": audience,
        topics_claim: list(topics),
        "publish": list(publish),
        "presence": list(presence),
    }
    given = {name: value for name, value in claims.items() if value not in (None, [])}
    return jwt.encode(given, secret, algorithm="HS256")
