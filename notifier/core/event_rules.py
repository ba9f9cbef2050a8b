"""The members of an event in words: the rule of each, and the names that they have elsewhere."""

from difflib import get_close_matches

LONGEST_WORD = 256  # characters: ids and types as other platforms make them
LONGEST_TEXT = 2048  # characters: a subject may name an object of 1,024 bytes by its path
LONGEST_TTL = 30 * 24 * 3600  # seconds
LONGEST_UNDELIVERED_AFTER = 24 * 3600  # seconds

_WORD = f"must be text of 1 to {LONGEST_WORD} characters, none of them a control character"
_TEXT = f"must be text of 1 to {LONGEST_TEXT} characters, none of them a control character"
_MOMENT = "must be a moment by RFC 3339 with its zone, such as 2026-01-31T09:30:00Z"

RULES = {
    "type": _WORD,
    "id": _WORD,
    "collapse_key": _WORD,
    "source": f"must be a URI reference (RFC 3986) of 1 to {LONGEST_TEXT} characters, such as "
    "/orders or https://shop.example; percent-encode everything else",
    "dataschema": f"must be a URI with its scheme (RFC 3986) of 1 to {LONGEST_TEXT} characters, "
    "such as https://shop.example/order.json",
    "subject": _TEXT,
    "datacontenttype": _TEXT,
    "time": _MOMENT,
    "expires": _MOMENT,
    "ttl": f"must be a number of seconds, more than 0 and at most {LONGEST_TTL}",
    "users": "must be a list of user ids, each of them text",
    "topic": "must be text",
    "everyone": "can only be true; leave it out otherwise",
    "silent": "must be true or false",
    "undelivered_after": "must be a number of seconds, at least 1 and at most "
    f"{LONGEST_UNDELIVERED_AFTER}",
    "report": "must be true or false",
    "data_base64": "must be bytes in base64, padded with = (RFC 4648, section 4)",
    "traceparent": "must be text",
    "extensions": f"must be text of at most {LONGEST_TEXT} characters without control characters, "
    "a whole number of 32 bits, true or false",
}

_ALSO_CALLED = {
    "users": ("user", "userid", "userids", "recipient", "recipients", "to", "audience"),
    "topic": ("topics", "channel", "channels", "room"),
    "everyone": ("all", "broadcast"),
    "type": ("event", "eventtype", "eventname", "kind"),
    "id": ("eventid", "messageid", "idempotencykey", "dedupid", "deduplicationid"),
    "time": ("timestamp", "date", "datetime", "eventtime", "createdat"),
    "data": ("data", "payload", "body", "message", "msg", "content", "detail"),
    "data_base64": ("database64",),
    "datacontenttype": ("contenttype",),
    "dataschema": ("schema",),
    "expires": ("expiry", "expiration", "expiresat"),
    "ttl": ("ttlseconds", "timetolive"),
    "collapse_key": ("collapsekey", "collapse", "collapseid"),
    "silent": ("quiet", "mute", "muted", "issilent"),
    "undelivered_after": ("undelivered", "handbackafter", "fallbackafter"),
    "report": ("reports", "deliveryreport", "deliveryreports"),
    "extensions": ("extension", "attributes"),
}
_ALIKE = 0.75  # of 1; a swap in a word of four letters makes so much
_ALL = (*RULES, "data")

_MEANT = {name.replace("_", ""): name for name in RULES} | {
    other: name for name, others in _ALSO_CALLED.items() for other in others
}


def resembled_by(name: str) -> str:
    """Return the member that a misspelt name resembles; empty for any other."""
    about_as_long = [each for each in _ALL if abs(len(each) - len(name)) <= 1]  # `title` is no ttl
    near = get_close_matches(name.lower(), about_as_long, 1, _ALIKE)
    return near[0] if near else ""


def meant_by(name: str) -> str:
    """Return the member that goes by another name or spelling elsewhere; empty for any other."""
    return _MEANT.get(name.replace("_", "").replace("-", "").lower(), "")
