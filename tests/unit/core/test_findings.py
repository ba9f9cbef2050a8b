from notifier.core.findings import Finding, render


def test_columns_are_aligned_and_the_remedy_stands_below() -> None:
    findings = [
        Finding("ok", "redis version", "Redis 7"),
        Finding("warning", "redis", "is old", "renew it"),
    ]

    assert render(findings) == (
        "ok       redis version  Redis 7\n"
        "warning  redis          is old\n"
        "                        mend: renew it"
    )


def test_no_findings_are_no_lines() -> None:
    assert render([]) == ""


def test_the_words_of_a_server_cannot_break_lines_or_steer_the_terminal() -> None:
    findings = [Finding("error", "redis", "no\r\n such \x1b[2J thing")]

    assert render(findings) == "error    redis  no such ?[2J thing"
