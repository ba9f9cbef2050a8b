import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.core.header_lists import elements, parameters


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("", []),
        (" , ,\t", []),
        ("a, b,,c", ["a", " b", "c"]),
        ('a;b="c,d", e', ['a;b="c,d"', " e"]),
        (r'a="\",", b="\\", c', [r'a="\","', r' b="\\"', " c"]),
    ],
)
def test_commas_separate_elements_but_for_those_in_quotes(value: str, found: list[str]) -> None:
    assert elements(value) == found


@pytest.mark.parametrize("begun", ['x="y', 'x="y, z="', 'x="y\\', '"', r'"\"', r'"\"\"'])
def test_a_quote_that_never_ends_swallows_no_element_of_the_proxy_behind_it(begun: str) -> None:
    assert elements(f"{begun}, for=192.0.2.1")[-1] == " for=192.0.2.1"


@pytest.mark.parametrize(
    ("element", "found"),
    [
        ("a", {"a": ""}),
        ("text/html; Q=0.5 ;; level=1", {"text/html": "", "q": "0.5", "level": "1"}),
        (r'a="b;c=d\"\\"; e="', {"a": 'b;c=d"\\', "e": ""}),
        ("a=1;A=2;a=3", {"a": "1"}),
        ("xa=1;a==", {"xa": "1", "a": "="}),
    ],
)
def test_parameters_stand_behind_semicolons_but_for_those_in_quotes(
    element: str, found: dict[str, str]
) -> None:
    assert parameters(element) == found


@pytest.mark.parametrize("piece", ['"\\', '\\"', '"a', ',"', '";'])
def test_a_quote_without_an_end_is_looked_for_once(piece: str) -> None:
    many = piece * 100_000  # a look for each would take nine minutes

    assert sum(map(len, elements(many))) + sum(map(len, parameters(many))) <= 2 * len(many)


@given(st.lists(st.text(alphabet='ab;= \t\\"', max_size=8), max_size=8))
def test_a_list_of_quoted_texts_is_read_as_it_was_written(texts: list[str]) -> None:
    quoted = ['"' + text.replace("\\", r"\\").replace('"', r"\"") + '"' for text in texts]

    found = elements(",".join(f"a={each}" for each in quoted))

    assert [parameters(each)["a"] for each in found] == texts
