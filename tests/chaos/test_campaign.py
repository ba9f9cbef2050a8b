from tests.chaos import campaign
from tests.chaos.failures import FAILURES


def test_a_run_of_some_failures_keeps_the_rows_of_the_others() -> None:
    killed, hung = (FAILURES[f"redis-{how}"] for how in ("killed", "hung"))
    former = campaign.table([campaign.Row(killed, rounds=1), campaign.Row(hung, rounds=2)])

    table = campaign.table([campaign.Row(hung, rounds=3)], former)

    cells = [[cell.strip() for cell in line.split("|")[1:3]] for line in table.splitlines()[2:]]
    assert cells == [["redis-killed", "1"], ["redis-hung", "3"]]
