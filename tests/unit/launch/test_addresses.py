"""The addresses that are denied to every process."""

from __future__ import annotations

from pathlib import Path

import pytest

from lambda_deno_spawn.launch.addresses import local_addresses, runtime_api_spellings
from tests.unit.launch.function import HOSTS

pytestmark = pytest.mark.as_lambda


@pytest.mark.parametrize(
    ("runtime_api", "more"),
    [
        ("127.0.0.1:9001", []),
        ("localhost:9001", []),
        ("127.0.0.2:9001", ["127.0.0.2"]),
        ("[::1]:9001", []),
        ("0.0.0.0:9001", []),
        ("169.254.100.1:9001", ["169.254.100.1"]),
        ("[fd00::1]:9001", ["[fd00::1]"]),
        ("runtime.test:9001", ["runtime.test", "0.0.0.0/0"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_way_to_the_runtime_api_is_denied(
    runtime_api: str, more: list[str]
) -> None:
    local = ["192.0.2.2", "[fd00::2]"]
    found = runtime_api_spellings(runtime_api, local)
    assert sorted(found) == sorted(f"{h}:9001" for h in [*HOSTS, *local, *more])
    assert found[0] == runtime_api


FIB_TRIE = """Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     |-- 127.0.0.1
        /32 host LOCAL
     |-- 192.0.2.2
        /32 host LOCAL
     |-- 192.0.2.255
        /32 link BROADCAST
Local:
     |-- 192.0.2.2
        /32 host LOCAL
     |-- 169.254.100.1
        /32 host LOCAL
"""


IF_INET6 = """fe8000000000000000fc00fffe000001 04 40 20 80     eth0
00000000000000000000000000000001 01 80 10 80       lo
fd000000000000000000000000000002 04 40 00 82     eth0
20010db8000100100000000000000000 04 40 00 82     eth0
20010db8000100020003000400050006 04 40 00 82     eth0
20010db8001000000000000100000000 04 40 00 82     eth0
"""


def test_the_machine_s_own_addresses_are_read(tmp_path: Path) -> None:
    assert local_addresses(tmp_path) == []
    (tmp_path / "fib_trie").write_text(FIB_TRIE)
    assert local_addresses(tmp_path) == ["192.0.2.2", "169.254.100.1"]
    (tmp_path / "if_inet6").write_text(IF_INET6)
    assert local_addresses(tmp_path)[2:] == [
        "[fe80::fc:ff:fe00:1]", "[fd00::2]", "[2001:db8:1:10::]",
        "[2001:db8:1:2:3:4:5:6]", "[2001:db8:10::1:0:0]",
    ]  # fmt: skip
