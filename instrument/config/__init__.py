"""iconfig.yml and devices.yml, read into frozen models; knows nothing of the other layers."""

from instrument.config.errors import ConfigError, Problem, UserError
from instrument.config.loader import find, load
from instrument.config.models import Config, DeviceSpec

__all__ = ["Config", "ConfigError", "DeviceSpec", "Problem", "UserError", "find", "load"]
