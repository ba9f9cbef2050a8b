from pathlib import Path

import pytest

from tests.support import generations


def test_an_unknown_generation_fails_with_those_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_SERVERS", "old")

    with pytest.raises(pytest.fail.Exception, match="use new or newest"):
        generations.chosen_root()


def test_a_missing_folder_fails_with_how_to_make_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TEST_SERVERS", "new")
    monkeypatch.setattr(generations, "_ROOTS", tmp_path)

    with pytest.raises(pytest.fail.Exception, match=r"install-services\.sh new"):
        generations.chosen_root()
