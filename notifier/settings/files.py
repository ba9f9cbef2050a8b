"""Settings from files: `NOTIFIER_X_FILE` names the file that has the value of `NOTIFIER_X`."""

import os
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import PydanticBaseSettingsSource

from notifier.settings.sentences import SettingsError, variable


class NamedFiles(PydanticBaseSettingsSource):
    """Reads the file that `NOTIFIER_X_FILE` names as the value of `NOTIFIER_X`."""

    def get_field_value(self, _field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """See PydanticBaseSettingsSource."""
        path = os.environ.get(f"{variable(field_name)}_FILE")
        try:
            value = Path(path).read_text().rstrip("\n") if path else None
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not text"
            raise SettingsError(
                [f"{variable(field_name)}_FILE: cannot read {path}: {reason}"]
            ) from None
        return value, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return the values of all files that are named."""
        names = self.settings_cls.model_fields
        values = {name: self.get_field_value(field, name)[0] for name, field in names.items()}
        return {name: value for name, value in values.items() if value is not None}
