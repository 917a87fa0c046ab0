"""Texts that a plan records beside its readings."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any


class Notes:
    """Texts as something that the RunEngine reads: one data key each.

    Args:
        name: Of this object.
        texts: By data key: the source that the descriptor names, and the text.
    """

    parent = None

    def __init__(self, name: str, texts: Mapping[str, tuple[str, str]]) -> None:
        self.name = name
        self._texts = dict(texts)
        self._time = time.time()

    def read(self) -> dict[str, dict[str, Any]]:
        """The texts."""
        return {key: {"value": text, "timestamp": self._time} for key, (_, text) in self._texts.items()}

    def describe(self) -> dict[str, dict[str, Any]]:
        """Where each is from."""
        return {key: {"source": source, "dtype": "string", "shape": []} for key, (source, _) in self._texts.items()}

    def read_configuration(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def describe_configuration(self) -> dict[str, Any]:
        """Nothing."""
        return {}
