"""URIs and references to them, by the grammar of RFC 3986, as CloudEvents requires of `source`.

Patterns are anchored, and each takes time in proportion to the text.
"""

import re


def _run(characters: str) -> str:
    return f"[{characters}]*(?:%[0-9A-Fa-f]{{2}}[{characters}]*)*"


_PLAIN = r"A-Za-z0-9\-._~!$&'()*+,;="
_IN_PATH = _run(_PLAIN + ":@/")
_HOST = rf"(?:\[[0-9A-Fa-f:.]+\]|{_run(_PLAIN)})"
# An empty host needs a path behind it, as in file:///x: readers in Java refuse "//" alone.
_AUTHORITY = rf"//(?=[^?#])(?:{_run(_PLAIN + ':')}@)?{_HOST}(?::[0-9]*)?(?:/{_IN_PATH})?"
_PATH = rf"(?!//){_IN_PATH}"
_TAIL = rf"(?:\?{_run(_PLAIN + ':@/?')})?(?:#{_run(_PLAIN + ':@/?')})?"
_ABSOLUTE = rf"[A-Za-z][A-Za-z0-9+.\-]*:(?=[^#])(?:{_AUTHORITY}|{_PATH}){_TAIL}"
_RELATIVE = rf"(?:{_AUTHORITY}|(?![^/?#]*:){_PATH}){_TAIL}"

URI = rf"^(?:{_ABSOLUTE})\Z"
# Most sources are plain paths: tried first, as the grammar takes longer.
_SIMPLE = r"/?[A-Za-z0-9\-._~][A-Za-z0-9\-._~/]*"
URI_REFERENCE = rf"^(?:{_SIMPLE}|{_ABSOLUTE}|{_RELATIVE})\Z"
_reference = re.compile(URI_REFERENCE)


def is_reference(text: str) -> bool:
    """Whether `text` is a URI, or a relative reference."""
    return _reference.match(text) is not None
