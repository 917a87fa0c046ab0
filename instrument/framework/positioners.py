"""What has a position, and what can't be given another."""

from __future__ import annotations

from typing import Any

LABEL = "motor"  # of what `wa` shows and `save_position` saves, components included


def is_positioner(device: Any) -> bool:
    """Whether a device has a position; asking for it would fail while it is offline, and a plan may not."""
    return hasattr(type(device), "position") or "position" in getattr(device, "__dict__", {})


def is_read_only(device: Any) -> bool:
    """Whether it is a signal that can't be written; of one that does not answer nobody knows."""
    return getattr(device, "write_access", True) is False and bool(getattr(device, "connected", True))
