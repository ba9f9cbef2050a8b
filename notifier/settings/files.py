"""Settings from files: `.env`, and the file of `NOTIFIER_X` that `NOTIFIER_X_FILE` names."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dotenv import dotenv_values
from pydantic.fields import FieldInfo
from pydantic_settings import PydanticBaseSettingsSource

from notifier.settings.sentences import SettingsError, variable


def environment() -> dict[str, str | None]:
    """Return the variables of the process, and those of `.env` beneath; raises SettingsError."""
    try:
        return {**dotenv_values(".env"), **os.environ}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError([f".env: cannot read it: {_reason(error)}"]) from None


def named_files(fields: Iterable[str]) -> dict[str, str]:
    """Return the path of each field's file, for fields that have one; raises SettingsError."""
    variables = environment()
    paths = ((field, variables.get(f"{variable(field)}_FILE")) for field in fields)
    return {field: path for field, path in paths if path}


class NamedFiles(PydanticBaseSettingsSource):
    """Reads the file that `NOTIFIER_X_FILE` names as the value of `NOTIFIER_X`."""

    def get_field_value(self, _field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """See PydanticBaseSettingsSource."""
        return self().get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return the values of all files that are named."""
        files = named_files(self.settings_cls.model_fields)
        return {field: _value_in(path, field) for field, path in files.items()}


def _value_in(path: str, field: str) -> str:
    try:
        # Editors on Windows begin a file with a byte order mark, which is no part of a secret.
        return Path(path).read_text("utf-8-sig").rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = f"cannot read {path}: {_reason(error)}"
        raise SettingsError([f"{variable(field)}_FILE: {reason}"]) from None


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return str(error.strerror) if isinstance(error, OSError) else "not text"
