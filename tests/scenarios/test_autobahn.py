"""The Autobahn cases: a fuzzing client against the gateway's own WebSocket protocol class."""

import pytest
from kosoku import FailureError, run_fuzzingclient

from tests.support.echoes import echoing

not_closing_its_files = pytest.mark.filterwarnings("ignore:Exception ignored in. <_io.FileIO")


async def outcome(*cases: str, concurrency: int = 8) -> tuple[int, dict[str, str]]:
    """Run cases, and return how many there were, and of each that failed what was wrong with it."""
    async with echoing() as address:
        try:
            results = await run_fuzzingclient(f"ws://{address}", cases, concurrency=concurrency)
        except FailureError as failure:
            results = failure.results
    return len(results), {
        each.case_id: f"{each.behavior.value}: {each.result} {each.result_close}"
        for each in results
        if not each.passed
    }


@pytest.mark.parametrize(
    ("section", "number"),
    [
        ("1", 16),  # framing
        ("2", 11),  # pings and pongs
        ("3", 7),  # reserved bits
        ("4", 10),  # opcodes
        ("5", 20),  # fragments
        ("6", 145),  # UTF-8
        ("7", 37),  # closing
        ("9", 54),  # limits and performance
        ("10", 1),  # automatic fragments
    ],
)
async def test_all_cases_of_the_protocol_pass(section: str, number: int) -> None:
    assert await outcome(f"{section}.*") == (number, {})


@not_closing_its_files
async def test_some_cases_of_compression_pass_with_each_offer() -> None:
    offers = [f"13.{offer}.{size}" for offer in range(1, 8) for size in (1, 5)]

    assert await outcome(*offers) == (14, {})


@pytest.mark.long
@not_closing_its_files
@pytest.mark.parametrize(("section", "number"), [("12", 90), ("13", 126)])
async def test_all_cases_of_compression_pass(section: str, number: int) -> None:
    # Some wait for the answer to each message: too many side by side would be too slow for them.
    assert await outcome(f"{section}.*", concurrency=2) == (number, {})
