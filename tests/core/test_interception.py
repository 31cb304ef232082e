"""The rules of an interception: what they leave out, and in which order."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.core.interception import Interception, removed, restored
from sidecar.core.interception_nft import nft_removed, nft_table


def rules(chain: str, version: int = 4, **settings: Any) -> list[str]:
    text = restored(Interception(**settings), version)
    start = f"-A {chain} "
    return [line.removeprefix(start) for line in text.splitlines() if line.startswith(start)]


@pytest.mark.parametrize("version", [4, 6])
def test_what_is_not_left_out_goes_to_the_sidecar(version: int) -> None:
    assert rules("SIDECAR_INBOUND", version)[-1] == "-p tcp -j REDIRECT --to-ports 15006"
    assert rules("SIDECAR_OUTBOUND", version)[-1] == "-p tcp -j REDIRECT --to-ports 15001"
    assert all(line.endswith("-j RETURN") for line in rules("SIDECAR_OUTBOUND", version)[:-1])


def test_the_sidecar_the_pod_itself_and_dns_are_left_out() -> None:
    assert rules("SIDECAR_OUTBOUND")[:5] == [
        "-s 127.0.0.6/32 -j RETURN",
        "-m owner --uid-owner 15015 -j RETURN",
        "-o lo -j RETURN",
        "-d 127.0.0.0/8 -j RETURN",
        "-p tcp --dport 53 -j RETURN",
    ]
    assert "-s ::6/128 -j RETURN" in rules("SIDECAR_OUTBOUND", 6)


def test_networks_are_left_out_in_their_own_family() -> None:
    given = {"skip_outbound_cidrs": ("10.96.0.0/16", "fd01::/64")}
    assert "-d 10.96.0.0/16 -j RETURN" in rules("SIDECAR_OUTBOUND", **given)
    assert "-d fd01::/64 -j RETURN" not in rules("SIDECAR_OUTBOUND", **given)
    assert "-d fd01::/64 -j RETURN" in rules("SIDECAR_OUTBOUND", 6, **given)


def test_ports_are_left_out_on_their_own_side() -> None:
    given = {"skip_inbound_ports": (9100,), "skip_outbound_ports": (9092,), "probes_port": 16021}
    assert rules("SIDECAR_INBOUND", **given)[1:3] == [
        "-p tcp --dport 16021 -j RETURN", "-p tcp --dport 9100 -j RETURN",
    ]  # fmt: skip
    assert "-p tcp --dport 9092 -j RETURN" in rules("SIDECAR_OUTBOUND", **given)
    assert not any("9100" in line for line in rules("SIDECAR_OUTBOUND", **given))


def test_chains_are_emptied_by_being_written() -> None:
    for text in (restored(Interception(), 4), removed()):
        assert text.startswith("*nat\n:SIDECAR_INBOUND - [0:0]\n:SIDECAR_OUTBOUND - [0:0]\n")
        assert text.endswith("COMMIT\n")
    assert "-A" not in removed()


def nft_rules(chain: str, version: int) -> list[str]:
    """What stands in it behind the line that sets its hook."""
    given = Interception(
        skip_inbound_ports=(9100,), skip_outbound_ports=(9092,), skip_outbound_cidrs=("10.0.0.0/8",)
    )
    _, _, behind = nft_table(given, version).partition(f"  chain {chain} {{\n")
    return [line.strip() for line in behind.partition("\n  }\n")[0].splitlines()[1:]]


def test_nft_is_told_the_same() -> None:
    assert nft_rules("inbound", 6) == [
        "meta l4proto != tcp return",
        "ip6 daddr ::1/128 return",
        "tcp dport { 9100, 15021 } return",
        "meta l4proto tcp redirect to :15006",
    ]
    assert nft_rules("outbound", 4) == [
        "meta l4proto != tcp return",
        "ip saddr 127.0.0.6 return",
        "meta skuid 15015 return",
        'oifname "lo" return',
        "ip daddr 127.0.0.0/8 return",
        "tcp dport { 53, 9092 } return",
        "ip daddr 10.0.0.0/8 return",
        "meta l4proto tcp redirect to :15001",
    ]
    assert not any("10.0.0.0" in rule for rule in nft_rules("outbound", 6))


def test_nft_takes_out_what_stood_there_in_the_same_transaction() -> None:
    assert nft_table(Interception(), 4).startswith(nft_removed(4))
    assert nft_removed(6) == "table ip6 sidecar_intercept\ndelete table ip6 sidecar_intercept"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"uid": 0}, "cannot be 0"),
        ({"inbound_port": 15001}, "must differ"),
        ({"outbound_port": 70000}, "70000 is no port"),
        ({"skip_inbound_ports": (0,)}, "0 is no port"),
        ({"skip_outbound_cidrs": ("10.0.0.1/8",)}, "is no network"),
    ],
)
def test_what_makes_no_sense_is_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Interception(**settings)
