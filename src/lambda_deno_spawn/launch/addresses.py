"""The addresses by which a process could reach the Runtime API."""

from __future__ import annotations

import os

from lambda_deno_spawn.early import suppress
from lambda_deno_spawn.launch.files import read_text
from lambda_deno_spawn.records import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lambda_deno_spawn.launch.files import AnyPath

NETWORK = "/proc/net"


def runtime_api_spellings(runtime_api: str, local: Iterable[str] = ()) -> list[str]:
    """Return the addresses to deny so that no process reaches the Runtime API.

    Deno compares addresses, and those that a name resolves to, so one spelling of an
    address covers all of its others (127.1, decimal, IPv6-mapped); it knows subnets for
    IPv4 only. A server that listens on every address of this machine can be reached at
    each of them, whichever address the platform names.

    Args:
        runtime_api: ``host:port``.
        local: This machine's own addresses.
    """
    host, _, port = runtime_api.rpartition(":")
    is_address = host.startswith("[") or not host.strip("0123456789.")
    if not is_address and host != "localhost":
        # The address behind the name is not known here: no IPv4 address on that port.
        local = (*local, "0.0.0.0/0")
    hosts = [
        host, "127.0.0.1", "localhost", "127.0.0.0/8", "0.0.0.0", "[::1]", "[::]",
        *local,
    ]  # fmt: skip
    return [f"{name}:{port}" for name in dict.fromkeys(hosts)]


def local_addresses(listing: AnyPath = NETWORK) -> list[str]:
    """Return the addresses of this machine as the kernel lists them (proc(5)).

    Empty where it does not. Loopback is left out: ``runtime_api_spellings`` has it.

    Args:
        listing: Folder of the kernel's lists.
    """
    found: list[str] = []
    with suppress(OSError):
        # In each entry the address stands above "/32 host LOCAL".
        address = ""
        text = read_text(os.path.join(listing, "fib_trie"), "latin-1")
        for line in text.splitlines():
            if "|-- " in line:
                address = line.rpartition(" ")[2]
            elif "/32 host LOCAL" in line and not address.startswith("127."):
                found.append(address)
    with suppress(OSError):
        lines = read_text(os.path.join(listing, "if_inet6"), "latin-1").splitlines()
        addresses = [line[:32] for line in lines]
        found += [f"[{_short_ipv6(a)}]" for a in addresses if int(a, 16) != 1]
    return list(dict.fromkeys(found))


def _short_ipv6(digits: str) -> str:
    """Return 32 hexadecimal digits as Deno writes an address, which is RFC 5952."""
    groups = [f"{int(digits[at : at + 4], 16):x}" for at in range(0, 32, 4)]
    for length in range(8, 1, -1):  # the first of the longest runs of zeros is left out
        for start in range(9 - length):
            if groups[start : start + length] == ["0"] * length:
                before, after = groups[:start], groups[start + length :]
                return f"{':'.join(before)}::{':'.join(after)}"
    return ":".join(groups)
