"""The library for charger integrators: keep the lease protocol right without writing it yourself.

``core`` decides (no sockets, no clock), ``aio`` and ``sync`` connect it to a daemon. Rules: docs/protocol.md.
"""

from powerd.client.core import ControllerCore, Memory, Refused
from powerd.client.lease import EvseConfig, Refusal, Write

__all__ = ["ControllerCore", "EvseConfig", "Memory", "Refusal", "Refused", "Write"]
