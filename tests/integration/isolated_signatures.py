"""Run inside a network namespace by ``test_signatures``: signs and verifies, and counts packets meant for elsewhere."""

from __future__ import annotations

import fcntl
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path

from harbor_satellite.registry.client import HttpRegistry
from harbor_satellite.registry.cosign import Cosign, RegistryAccess
from tests.fixtures_registry import run_embedded
from tests.integration.test_signatures import PASSWORD, REPOSITORY, Signer, push_index

_SIOCSIFFLAGS, _IFF_UP_RUNNING = 0x8914, 0x41  # linux/sockios.h, linux/if.h


def bring_loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14s", b"lo", _IFF_UP_RUNNING, b""))


def strays() -> int:
    """Count what was sent to nowhere, and every question to a name server."""
    lines = [line.split() for line in Path("/proc/net/snmp").read_text().splitlines()]
    counters = {
        (names[0], name): int(value)
        for names, values in zip(lines[::2], lines[1::2], strict=True)
        for name, value in zip(names[1:], values[1:], strict=True)
    }
    return counters["Ip:", "OutNoRoutes"] + counters["Udp:", "OutDatagrams"]


def say(line: str) -> None:
    sys.stdout.write(line + "\n")


def main(folder: Path, keys: Path) -> None:
    bring_loopback_up()
    cosign = Cosign()
    signer = Signer(keys, shutil.which("cosign") or "")
    with run_embedded(folder / "isolated") as running, HttpRegistry(running.url) as registry:
        index = push_index(registry)
        access = RegistryAccess(running.url)
        before = strays()
        cosign.sign(access, REPOSITORY, index.digest, key=signer.private, password=PASSWORD)
        say(f"sign:{strays() - before}")
        cosign.verify(access, REPOSITORY, index.digest, (signer.public,))
        say(f"verify:{strays() - before}")
        # The control: cosign as it comes asks for the transparency log's keys, and is seen doing so.
        reference = f"{running.host}/{REPOSITORY}@{index.digest}"
        command = [signer.program, "verify", "--key", str(keys / "cosign.pub"), "--allow-http-registry", reference]
        subprocess.run(command, capture_output=True, check=False, env={"HOME": str(folder)}, timeout=60)
        say("control:strays" if strays() > before else "control:none")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
