"""A site as a host of its own: a network namespace, joined to this one by a veth that can be cut and throttled.

The site reaches the centre's ports at the addresses that the centre has here, on the loopback: they are redirected
over the veth and back, so whatever crosses between the two crosses that link. Needs root, iproute2 and nftables.
"""

from __future__ import annotations

import ctypes
import ipaddress
import os
import secrets
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import pytest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from types import TracebackType

_CLONE_NEWNET: Final = 0x40000000  # linux/sched.h
_NETWORK: Final = ipaddress.IPv4Network("10.214.0.0/16")  # of 16,384 links: two alike would lead to each other
_TABLE: Final = "harbor_satellite_test"


class Host:
    """A network namespace whose only way out is a link to some ports of this one.

    Args:
        ports: TCP ports of this host's loopback that the site may reach.
    """

    def __init__(self, ports: Collection[int]) -> None:
        self.name = f"hs-{secrets.token_hex(3)}"
        self._ports = ", ".join(map(str, sorted(ports)))
        network = _NETWORK.network_address + 4 * secrets.randbelow(_NETWORK.num_addresses // 4)
        self._centre, self._site = str(network + 1), str(network + 2)
        self._table = f"{_TABLE}_{self.name[3:]}"

    def __enter__(self) -> Self:
        skip_without_namespaces()
        here, there, name = f"{self.name}a", f"{self.name}b", self.name
        try:
            _run("ip", "netns", "add", name)
            _run("ip", "link", "add", here, "type", "veth", "peer", "name", there, "netns", name)
            _run("ip", "addr", "add", f"{self._centre}/30", "dev", here)
            _run("ip", "link", "set", here, "up")
            for words in (
                f"addr add {self._site}/30 dev {there}",
                f"link set {there} up",
                "link set lo up",
                f"route add default via {self._centre}",
            ):
                _run("ip", "-n", name, *words.split())
            Path(f"/proc/sys/net/ipv4/conf/{here}/route_localnet").write_text("1")
            for device in ("all", there):
                self.run("sysctl", "-qw", f"net.ipv4.conf.{device}.route_localnet=1")
            self._nft(
                f"chain out {{ type nat hook output priority -100; "
                f"ip daddr 127.0.0.1 tcp dport {{ {self._ports} }} dnat to {self._centre}; }}; "
                f"chain from {{ type nat hook postrouting priority 100; oifname {there} masquerade; }}; "
                f"chain cut {{ type filter hook output priority 0; }};",
                inside=True,
            )
            self._nft(
                f"chain into {{ type nat hook prerouting priority -100; "
                f"iifname {here} tcp dport {{ {self._ports} }} dnat to 127.0.0.1; }};",
                inside=False,
            )
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    @property
    def prefix(self) -> tuple[str, ...]:
        """What stands before a command line to run it on this host."""
        return ("ip", "netns", "exec", self.name)

    def run(self, *argv: str, timeout_seconds: float = 60.0) -> str:
        """Run a command there to its end; give what it prints."""
        return _run(*self.prefix, *argv, timeout_seconds=timeout_seconds)

    def enter(self) -> None:
        """Have this thread's next sockets belong to that host, for as long as the thread lives."""
        with Path("/run/netns", self.name).open("rb") as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"cannot enter {self.name}")

    def cut(self) -> None:
        """Let every packet vanish, as a dead uplink does."""
        self._forbid("drop")

    def refuse(self, *ports: int) -> None:
        """Turn connections away, as a host does where nobody listens; all ports if none is named."""
        which = f"tcp dport {{ {', '.join(map(str, ports))} }} " if ports else ""
        self._forbid(f"meta l4proto tcp {which}reject with tcp reset")

    def restore(self) -> None:
        """Undo ``cut`` and ``refuse``."""
        self.run("nft", "flush", "chain", "ip", self._table, "cut")

    def throttle(self, bytes_per_second: int) -> None:
        """Let no more through in either direction; with some 100 ms of queue."""
        rate, burst = f"{bytes_per_second * 8}bit", str(max(3000, bytes_per_second // 50))
        shape = ("root", "tbf", "rate", rate, "burst", burst, "latency", "100ms")
        _run("tc", "qdisc", "replace", "dev", f"{self.name}a", *shape)
        _run("tc", "-n", self.name, "qdisc", "replace", "dev", f"{self.name}b", *shape)

    def unthrottle(self) -> None:
        """Undo ``throttle``."""
        for argv in (("tc",), ("tc", "-n", self.name)):
            device = f"{self.name}{'b' if len(argv) > 1 else 'a'}"
            subprocess.run([*argv, "qdisc", "del", "dev", device, "root"], capture_output=True, check=False, timeout=30)

    def crossed_bytes(self) -> tuple[int, int]:
        """Return what has crossed the link so far, Ethernet headers included: to the site, and from it."""
        counters = Path("/sys/class/net", f"{self.name}a", "statistics")
        sent, received = (int((counters / name).read_text()) for name in ("tx_bytes", "rx_bytes"))
        return sent, received

    def _forbid(self, verdict: str) -> None:
        self.restore()
        self.run("nft", "add", "rule", "ip", self._table, "cut", "ip", "daddr", self._centre, *verdict.split())

    def _nft(self, chains: str, *, inside: bool) -> None:
        argv = (*(self.prefix if inside else ()), "nft", f"table ip {self._table} {{ {chains} }}")
        _run(*argv)

    def _remove(self) -> None:
        for argv in (
            ("nft", "delete", "table", "ip", self._table),
            ("ip", "link", "del", f"{self.name}a"),
            ("ip", "netns", "del", self.name),
        ):
            subprocess.run(argv, capture_output=True, check=False, timeout=30)


@contextmanager
def refused_here(port: int) -> Iterator[None]:
    """Turn away, on this host and not the site's, who connects to a port of the loopback, and end what is connected."""
    table = f"{_TABLE}_{secrets.token_hex(3)}"
    _run(
        "nft",
        f"table ip {table} {{ chain out {{ type filter hook output priority 0; "
        f"ip daddr 127.0.0.1 tcp dport {port} reject with tcp reset; }}; }}",
    )
    try:
        yield
    finally:
        _run("nft", "delete", "table", "ip", table)


def skip_without_namespaces() -> None:
    """Skip the test, saying why, where no hosts can be made."""
    missing = [program for program in ("ip", "nft", "tc", "sysctl") if not shutil.which(program)]
    if os.geteuid() != 0 or missing:
        pytest.skip(f"NOT TESTED: network namespaces need root{''.join(f', and {one}' for one in missing)}")


def _run(*argv: str, timeout_seconds: float = 30.0) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=timeout_seconds)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
