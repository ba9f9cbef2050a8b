"""The Autobahn cases: a fuzzing client against the gateway's WebSocket protocol class."""

import pytest
from kosoku import FailureError, run_fuzzingclient

from tests.support.echoes import echoing

# Ends with what follows a close frame, of which RFC 6455 says nothing that could be tested.
EXCEPTED = ["7.1.5"]


async def failures(cases: list[str], *, concurrency: int) -> dict[str, str]:
    """Run cases, and say of each that did not pass what was wrong with it."""
    async with echoing() as address:
        try:
            results = await run_fuzzingclient(f"ws://{address}", cases, concurrency=concurrency)
        except FailureError as failure:
            results = failure.results
    assert results
    return {
        each.case_id: f"{each.behavior.value}: {each.result} {each.result_close}"
        for each in results
        if not each.passed and each.case_id not in EXCEPTED
    }


@pytest.mark.parametrize("section", ["1", "2", "3", "4", "5", "6", "7", "10"])
async def test_the_protocol_is_kept(section: str) -> None:
    assert await failures([f"{section}.*"], concurrency=8) == {}
