"""Process settings, read from the environment once, at the edge of each process.

Libraries never read these: they are given plain values. Every variable starts with
``HARBOR_SATELLITE_``; Ground Control's continue with ``GROUND_CONTROL_``.
"""

from harbor_satellite.settings.ground_control import GroundControlSettings
from harbor_satellite.settings.satellite import SatelliteSettings

__all__ = ["GroundControlSettings", "SatelliteSettings"]
