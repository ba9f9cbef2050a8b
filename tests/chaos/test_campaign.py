from tests.chaos import campaign
from tests.chaos.failures import FAILURES


def test_a_run_of_some_failures_keeps_the_rows_of_the_others() -> None:
    killed, hung = (FAILURES[f"redis-{how}"] for how in ("killed", "hung"))
    former = campaign.table([campaign.Row(killed, rounds=1), campaign.Row(hung, rounds=2)])

    table = campaign.table([campaign.Row(hung, rounds=3)], former)

    cells = [[cell.strip() for cell in line.split("|")[1:3]] for line in table.splitlines()[2:]]
    assert cells == [["redis-killed", "1"], ["redis-hung", "3"]]


def test_a_former_row_has_a_dash_in_a_column_that_it_did_not_have() -> None:
    killed, hung = (FAILURES[f"redis-{how}"] for how in ("killed", "hung"))
    complete = campaign.table([campaign.Row(killed, rounds=1)])
    former = "told above the table\n\n" + "\n".join(
        "|".join(line.split("|")[:4]) + "|" for line in complete.splitlines()
    )

    table = campaign.table([campaign.Row(hung, rounds=1)], former)

    kept = [cell.strip() for cell in table.splitlines()[2].strip("| ").split("|")]
    assert kept == ["redis-killed", "1", "0", *["-"] * (len(campaign.HEADER) - 3)]
