"""One record of a database, as text that EPICS base loads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class RecordSpec:
    """One record of the database."""

    name: str
    type: str
    description: str
    fields: Mapping[str, object] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()

    def database_text(self) -> str:
        """The record in EPICS's database language."""
        lines = [f'record({self.type}, "{self.name}") {{', f'  field(DESC, "{_quoted(self.description[:40])}")']
        lines += [f'  field({name}, "{_quoted(str(value))}")' for name, value in self.fields.items()]
        lines += [f'  alias("{alias}")' for alias in self.aliases]
        return "\n".join([*lines, "}"])


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
