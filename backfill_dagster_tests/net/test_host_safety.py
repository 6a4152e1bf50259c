"""Which endpoints and addresses are refused, as text and at the socket."""

from __future__ import annotations

import socket

import pytest

from backfill_dagster.errors import RefusedHostError
from backfill_dagster.model import Shard
from backfill_dagster.net.host_safety import (
    AddressGuard,
    Origin,
    RefusedAddressError,
    check_endpoint,
    is_public_address,
)


@pytest.mark.parametrize(
    ("url", "origin", "normal", "shard_host"),
    [
        ("https://pds.example.com", Origin("https", "pds.example.com", 443), "https://pds.example.com", None),
        ("HTTPS://PDS.Example.COM:443/", Origin("https", "pds.example.com", 443), "https://pds.example.com", None),
        ("https://pds.example.com.", Origin("https", "pds.example.com", 443), "https://pds.example.com", None),
        (
            "https://pds.example.com:8443",
            Origin("https", "pds.example.com", 8443),
            "https://pds.example.com:8443",
            "pds.example.com_8443",
        ),
        (
            "http://pds.example.com",
            Origin("http", "pds.example.com", 80),
            "http://pds.example.com:80",
            "pds.example.com_80",
        ),
        (
            "https://bücher.example",
            Origin("https", "xn--bcher-kva.example", 443),
            "https://xn--bcher-kva.example",
            None,
        ),
        ("https://93.184.215.14", Origin("https", "93.184.215.14", 443), "https://93.184.215.14", None),
        (
            "https://[2606:4700::1111]:444",
            Origin("https", "2606:4700::1111", 444),
            "https://[2606:4700::1111]:444",
            "ip6-2606-4700-0-0-0-0-0-1111_444",
        ),
    ],
)
def test_public_origins_are_normalised(url: str, origin: Origin, normal: str, shard_host: str | None) -> None:
    found = check_endpoint(url, allow_private=False)
    assert found == origin
    assert found.url == normal
    assert found.shard_host == (shard_host or origin.host)
    assert check_endpoint(found.url, allow_private=False) == origin
    assert Shard.parse(Shard(found.shard_host, 3).key) == Shard(found.shard_host, 3)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "pds.example.com",
        "ftp://pds.example.com",
        "file:///etc/passwd",
        "https://",
        "https:///path",
        "https://pds.example.com/xrpc",
        "https://pds.example.com//",
        "https://pds.example.com?",
        "https://pds.example.com/?a=b",
        "https://pds.example.com#",
        "https://user@pds.example.com",
        "https://user:secret@pds.example.com",
        "https://@pds.example.com",
        "https://pds.example.com:0",
        "https://pds.example.com:",
        "https://pds.example.com:65536",
        "https://pds.example.com:x",
        "https://pds .example.com",
        "https://pds.example.com\r\nHost: x",
        "https://pds.example.com\\@evil.example",
        "https://a_b.example.com",
        "https://-a.example.com",
        "https://a..example.com",
        "https://.example.com",
        "https://127.1.example.1",
        "https://127.1",
        "https://2130706433",
        "https://0x7f000001",
        "https://0x7f.0.0.1",
        "https://0177.0.0.1",
        "https://１２７.1",
        "https://[::1",
        "https://[nonsense]",
        "https://[fe80::1%25eth0]",
        "https://[fe80::1%eth0]",
        "https://\u2488.example",
        "https://ex%41mple.com",
        "https://" + "a" * 64 + ".example",
        "https://" + "a." * 130 + "example",
        "https://" + "a" * 2100,
    ],
)
@pytest.mark.parametrize("allow_private", [False, True])
def test_what_is_no_origin_is_refused_always(url: str, allow_private: bool) -> None:
    with pytest.raises(RefusedHostError) as caught:
        check_endpoint(url, allow_private)
    assert caught.value.error_code == "BadEndpoint"
    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:2583",
        "http://LOCALHOST.:2583",
        "https://pds.localhost",
        "https://pds.local",
        "https://pds.internal",
        "https://router.home.arpa",
        "https://intranet",
        "https://127.0.0.1",
        "https://10.0.0.1:8080",
        "https://169.254.169.254",
        "https://100.64.0.1",
        "https://224.0.0.1",
        "https://255.255.255.255",
        "https://0.0.0.0",
        "https://[::1]:2583",
        "https://[::]",
        "https://[::ffff:127.0.0.1]",
        "https://[fd00::1]",
        "https://[fe80::1]",
        "https://[ff02::1]",
    ],
)
def test_private_origins_are_refused_unless_allowed(url: str) -> None:
    with pytest.raises(RefusedHostError, match=r"processing\.allow_private_hosts") as caught:
        check_endpoint(url, allow_private=False)
    assert caught.value.error_code == "PrivateHost"
    origin = check_endpoint(url, allow_private=True)
    assert check_endpoint(origin.url, allow_private=True) == origin
    assert Shard.parse(Shard(origin.shard_host, 0).key).host == origin.shard_host


def test_localhost_with_a_port_is_written_as_partition_keys_are() -> None:
    assert check_endpoint("http://localhost:2583", allow_private=True).shard_host == "localhost_2583"


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.215.14", True),
        ("2606:4700::1111", True),
        ("::ffff:93.184.215.14", True),
        ("64:ff9b::5db8:d70e", True),
        ("2002:5db8:d70e::1", True),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::a00:1", False),
        ("2002:a00:1::1", False),
        ("::a00:1", False),
        ("fec0::1", False),
        ("2001:db8::1", False),
        ("2606:4700::1111%eth0", False),
        ("192.168.1.1", False),
        ("172.16.0.1", False),
        ("192.0.2.1", False),
        ("198.18.0.1", False),
        ("240.0.0.1", False),
        ("239.1.1.1", False),
        ("ff0e::1", False),
        ("nonsense", False),
    ],
)
def test_public_addresses(address: str, public: bool) -> None:
    assert is_public_address(address) is public


def test_the_guard_refuses_before_a_socket_exists() -> None:
    guard = AddressGuard(allow_private=False)
    info = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", 80))
    with pytest.raises(RefusedAddressError, match=r"127\.0\.0\.2"):
        guard.socket_factory(info)
    with AddressGuard(allow_private=True).socket_factory(info) as made:
        assert made.family == socket.AF_INET
        assert made.type == socket.SOCK_STREAM
