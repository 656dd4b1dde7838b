"""Ports for servers under test, each given to nobody else while its server has not started yet, or starts again."""

from __future__ import annotations

import socket


def free_port() -> int:
    """Return a TCP port of the loopback that belongs to this process until it ends.

    A bound socket that does not listen stays behind: the kernel gives its port to nobody, and lets a server that
    sets ``SO_REUSEADDR``, as they all do, listen there. With a port that is only free *now*, a test sometimes talks
    to the server of another test that runs at the same time.
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    port: int = holder.getsockname()[1]
    holder.detach()
    return port
