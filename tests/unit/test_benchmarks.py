"""The benchmarks' figures, tables and pictures. The figures here are made up."""

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

from benchmarks.chart import chart
from benchmarks.delivering import Values, compared
from benchmarks.profiling import TRACING
from benchmarks.report import BEGIN, END, PAGE, section
from benchmarks.results import Record, Result, kept, medians_of, name_of
from benchmarks.rows import BROADCAST, GROWTH, MEMORY, NOTIFIER
from benchmarks.sizes import FULL
from benchmarks.table import Table

NCHAN = "Nchan"
MACHINE = {"processor": "a", "cores": 2, "kernel": "b", "python": "c", "redis": "d"}


def results(*runs: tuple[str, float, float]) -> dict[str, Result]:
    record = Record(FULL, MACHINE)
    for name, deliveries, kib in runs:
        record.take(BROADCAST, name, "1.0", {"value": deliveries})
        record.take(MEMORY, name, "1.0", {"value": kib})
        growth = {"value": 1.5, "microseconds_1000": 2.0, "microseconds_15000": 3.0}
        record.take(GROWTH, name, "1.0", {**growth})
    record.skip(BROADCAST, "Centrifugo", "not installed (go install it)")
    return record.results()


def test_the_table_on_the_page_is_made_of_the_results() -> None:
    page = PAGE.read_text()

    assert section(kept()) == page.partition(BEGIN)[2].partition(END)[0]


def test_a_figure_is_the_median_of_the_runs() -> None:
    runs: list[Values] = [{"value": 1.0}, {"value": 100.0}, {"value": 2.0}]

    assert medians_of(runs) == {"value": 2.0}


def test_a_figure_that_most_runs_lack_is_none() -> None:
    assert medians_of([{"value": 1.0}, {"value": None}]) == {"value": None}


def test_a_ratio_says_how_many_times_as_good_notifier_is() -> None:
    text = Table(results((NOTIFIER, 200_000, 4), (NCHAN, 100_000, 10))).text()

    assert "100k (2.00×)" in text  # twice as many deliveries
    assert "10.0 (2.50×)" in text  # two fifths of the memory


def test_a_bar_is_met_or_missed() -> None:
    met = Table(results((NOTIFIER, 141_000, 2.5), (NCHAN, 100_000, 10))).text()
    missed = Table(results((NOTIFIER, 139_000, 2.6), (NCHAN, 100_000, 10))).text()

    assert "≥ 1.4 × Nchan: met" in met
    assert "≤ 2.5: met" in met
    assert "≥ 1.4 × Nchan: missed" in missed
    assert "≤ 2.5: missed" in missed


def test_a_bar_whose_peer_is_not_there_is_not_measured() -> None:
    assert "≥ 1.4 × Nchan: not measured" in Table(results((NOTIFIER, 1e9, 1))).text()


def test_a_contender_that_is_not_installed_is_named_with_the_way_to_get_it() -> None:
    text = Table(results((NOTIFIER, 1, 1))).text()

    assert "skipped [1]" in text
    assert "[1] Centrifugo: not installed (go install it)" in text


def test_a_feature_that_a_peer_lacks_stands_at_its_figure() -> None:
    markdown = Table(results((NOTIFIER, 1, 1), (NCHAN, 1, 1))).markdown()

    assert "no token, one channel" in markdown


def test_each_row_says_how_often_and_where_it_was_measured() -> None:
    of_rows = {
        **results((NOTIFIER, 1, 1)),
        GROWTH.key: results((NOTIFIER, 1, 1), (NOTIFIER, 2, 2))[GROWTH.key],
    }
    of_rows[MEMORY.key] |= {"machine": {**MACHINE, "python": "3.13", "rabbitmq": "4"}}

    lines = section({"one": of_rows}).splitlines()

    measured = {line.split(" | ")[0][2:]: line.split(" | ")[1] for line in lines if " | " in line}
    assert [measured[row.title] for row in (BROADCAST, GROWTH)] == ["A", "C"]
    assert measured[f"{MEMORY.title} (KiB)"] == "B"
    assert "A: one run on a, 2 cores, b, Python c, Redis d  " in lines
    assert "B: one run on a, 2 cores, b, Python 3.13, Redis d, RabbitMQ 4  " in lines
    assert "C: medians of 2 runs on a, 2 cores, b, Python c, Redis d  " in lines


def test_contenders_of_a_row_may_have_run_more_or_less_often() -> None:
    text = Table(results((NOTIFIER, 1, 1), (NOTIFIER, 1, 1), (NCHAN, 1, 1))).text()

    assert "A: medians of 1 to 2 runs on " in text


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    record = Record(FULL, MACHINE)
    record.take(MEMORY, NOTIFIER, "1.0", {"value": 3.5})

    record.write(tmp_path)

    read = kept(tmp_path)["a-2-cores"]
    assert read[MEMORY.key]["contenders"][NOTIFIER]["median"] == {"value": 3.5}


def test_a_machine_is_named_by_its_processor_and_cores() -> None:
    machine = {"processor": "Intel(R) Xeon(R) Gold 6 @ 2.1GHz", "cores": 8, "kernel": "b"}

    assert name_of(machine) == "intel-xeon-gold-6-2-1ghz-8-cores"


def test_ratios_of_two_machines_stand_side_by_side() -> None:
    machines = {
        "one": results((NOTIFIER, 200_000, 4), (NCHAN, 100_000, 10)),
        "other": results((NOTIFIER, 90_000, 4), (NCHAN, 100_000, 8)),
    }

    lines = section(machines).partition("on each machine:")[2].splitlines()

    assert f"| {BROADCAST.title} | {NCHAN} | 2.00× | 0.90× |" in lines
    assert f"| {MEMORY.title} | {NCHAN} | 2.50× | 2.00× |" in lines


def test_a_row_of_one_machine_alone_is_not_compared() -> None:
    two = {"one": results((NOTIFIER, 1, 1)), "other": results((NOTIFIER, 2, 2))}
    del two["other"][MEMORY.key]

    compared_rows = section(two).partition("on each machine:")[2]

    assert MEMORY.title not in compared_rows
    assert f"| {GROWTH.title} | (×) | 1.50 | 1.50 |" in compared_rows


def test_results_of_one_machine_need_no_second_table() -> None:
    assert "on each machine" not in section({"one": results((NOTIFIER, 1, 1))})


def test_the_machine_of_most_rows_stands_first(tmp_path: Path) -> None:
    for processor, rows in (("a", [MEMORY]), ("b", [MEMORY, GROWTH])):
        record = Record(FULL, {**MACHINE, "processor": processor})
        for row in rows:
            record.take(row, NOTIFIER, "1.0", {"value": 1.0})
        record.write(tmp_path)

    assert list(kept(tmp_path)) == ["b-2-cores", "a-2-cores"]


def test_one_client_that_stops_reading_is_judged_by_halves_that_follow_each_other() -> None:
    pairs = [(10.0, 11.0), (100.0, 90.0), (20.0, 20.0)]

    found = compared([(half(before), half(after)) for before, after in pairs])

    assert found["value"] == 1.0
    assert (found["p99_ms_before"], found["p99_ms_after"]) == (20.0, 20.0)


def test_an_event_that_never_arrived_is_no_percentile() -> None:
    found = compared([(half(10), half(10)), (half(10), half(None, arrived=0.5))])

    assert found["value"] is None
    assert found["arrived_after"] == 0.5


def half(p99: float | None, arrived: float = 1) -> Values:
    return {"p99_ms": p99, "arrived": arrived, "gone": 0}


BUSY_FOR_A_WHILE = """
import asyncio, os, signal, time

async def main():
    os.kill(os.getpid(), signal.SIGUSR2)
    await asyncio.sleep(0.1)
    enough = time.thread_time() + 0.05
    while time.thread_time() < enough:
        pass
    await asyncio.sleep(0)
    os.kill(os.getpid(), signal.SIGUSR2)
    await asyncio.sleep(0.1)

with asyncio.Runner(loop_factory=__import__("uvloop").new_event_loop) as runner:
    runner.run(main())
"""


def test_a_turn_in_which_the_loop_was_busy_is_seen(tmp_path: Path) -> None:
    environment = {**os.environ, "BENCHMARK_TURNS": str(tmp_path), "PYTHONPATH": str(TRACING)}

    subprocess.run([sys.executable, "-c", BUSY_FOR_A_WHILE], env=environment, check=True)

    [file] = tmp_path.iterdir()
    told = json.loads(file.read_text())
    assert told["cpu_ms"] >= 50
    assert told["wall_ms"] >= 50
    assert told["turns"] > 2


def test_the_picture_is_well_formed_and_names_everybody() -> None:
    drawn = ET.fromstring(chart(results((NOTIFIER, 2, 1), (NCHAN, 1, 2))))  # noqa: S314  # ours

    texts = {text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")}
    assert {NOTIFIER, NCHAN} <= texts
