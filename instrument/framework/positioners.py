"""What has a position."""

from __future__ import annotations

from typing import Any

LABEL = "motor"  # of what `wa` shows and `save_position` saves, components included


def is_positioner(device: Any) -> bool:
    """Whether a device has a position; asking for it would fail while it is offline, and a plan may not."""
    return hasattr(type(device), "position") or "position" in getattr(device, "__dict__", {})
