import re
from base64 import b64encode
from hashlib import sha256

import pytest

from contracts.documents import documents
from notifier.api_reference import HEADERS, page_of

OPENAPI = {name: each for name, each in documents().items() if name.startswith("openapi")}
SURFACES = pytest.mark.parametrize("name", sorted(OPENAPI))


@SURFACES
def test_the_page_names_every_endpoint_and_every_schema(name: str) -> None:
    page = page_of(OPENAPI[name])

    for path, operations in OPENAPI[name]["paths"].items():
        for method in operations:
            assert f"{method.upper()} {path}</h2>" in page
    for schema in OPENAPI[name]["components"]["schemas"]:
        assert f'id="schema-{schema}"' in page


@SURFACES
def test_the_page_needs_no_script_and_no_other_host(name: str) -> None:
    page = page_of(OPENAPI[name])

    assert "<script" not in page
    assert re.findall(r'(?:src|href)=(?!"#|"openapi\.json)', page) == []


def test_the_policy_allows_the_page_its_own_style_and_nothing_else() -> None:
    [style] = re.findall("<style>(.*?)</style>", page_of(OPENAPI["openapi-api.json"]), re.DOTALL)

    digest = b64encode(sha256(style.encode()).digest()).decode()
    policy = HEADERS["Content-Security-Policy"]
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}';")


@SURFACES
def test_every_link_leads_to_a_place_on_the_page(name: str) -> None:
    page = page_of(OPENAPI[name])

    places = set(re.findall(r'id="([^"]+)"', page))
    assert set(re.findall(r'href="#([^"]+)"', page)) <= places


def test_text_of_the_description_is_shown_as_text() -> None:
    document = {
        "info": {"title": "<b>", "version": "1", "description": "`<i>`"},
        "paths": {},
    }

    page = page_of(document)

    assert "<b>" not in page
    assert "<code>&lt;i&gt;</code>" in page
