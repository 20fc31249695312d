"""RFC 3263 against a real name server on this machine."""

import asyncio
import random
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from sip_dns_server import NameServer, name_server

from bridge.sip.errors import LocateError
from bridge.sip.resolver import Resolver, ResolverSettings, Srv, Target, order_srv
from bridge.sip.uri import Uri

ZONE = {
    "carrier.example NAPTR": [
        '20 10 "s" "SIP+D2U" "" _sip._udp.carrier.example.',
        '10 10 "s" "SIPS+D2T" "" _sips._tcp.carrier.example.',
        '10 20 "s" "SIP+D2T" "" _sip._tcp.carrier.example.',
        '5 10 "s" "SIP+D2S" "" _sip._sctp.carrier.example.',
    ],
    "_sips._tcp.carrier.example SRV": ["10 0 5081 one.carrier.example.", "20 0 5082 two.carrier.example."],
    "_sip._tcp.carrier.example SRV": ["10 0 5070 one.carrier.example."],
    "_sip._udp.carrier.example SRV": ["20 5 5061 two.carrier.example.", "10 5 5060 one.carrier.example."],
    "carrier.example A": ["192.0.2.9"],
    "one.carrier.example A": ["192.0.2.1"],
    "two.carrier.example A": ["192.0.2.2"],
    "two.carrier.example AAAA": ["2001:db8::2"],
    "plain.example A": ["192.0.2.20"],
    "plain.example AAAA": ["2001:db8::20"],
    "services.example SRV": [],
    "_sip._tcp.services.example SRV": ["1 1 5075 one.carrier.example."],
    "_sip._udp.nothing.example SRV": ["0 0 0 ."],
    "nothing.example A": ["192.0.2.21"],
    "_sip._udp.half.example SRV": ["1 1 5060 gone.example.", "2 1 5060 one.carrier.example."],
    "half.example A": ["192.0.2.22"],
    "alias.example CNAME": ["plain.example."],
}


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def resolving(**options: Any) -> AsyncIterator[tuple[Resolver, NameServer, Clock]]:
    settings: dict[str, Any] = options.pop("settings", {})
    async with name_server(dict(ZONE)) as server:
        clock = Clock()
        made = Resolver(
            ResolverSettings(nameservers=(server.address,), **({"query_s": 0.4} | settings)),
            clock=clock,
            rng=random.Random(1),
            **options,
        )
        yield made, server, clock
        await made.aclose()


async def found(resolver: Resolver, uri: str, transport: str = "") -> list[str]:
    targets = await resolver.locate(Uri.parse(uri), transport)
    return [f"{t.transport} {t.address[0]} {t.address[1]}" for t in targets]


@pytest.mark.parametrize(
    ("uri", "transport", "expected"),
    [
        ("sip:192.0.2.5", "", ["udp 192.0.2.5 5060"]),
        ("sip:192.0.2.5:5090", "tcp", ["tcp 192.0.2.5 5090"]),
        ("sips:a@192.0.2.5", "", ["tls 192.0.2.5 5061"]),
        ("sips:a@192.0.2.5;transport=tcp", "", ["tls 192.0.2.5 5061"]),
        ("sip:[2001:db8::5];transport=tls", "", ["tls 2001:db8::5 5061"]),
        ("sip:carrier.example;maddr=192.0.2.7", "", ["udp 192.0.2.7 5060"]),
        ("sip:carrier.example:5099", "", ["udp 192.0.2.9 5099"]),
        ("sip:carrier.example:5099", "tls", ["tls 192.0.2.9 5099"]),
        (
            "sip:carrier.example",
            "",
            ["tls 192.0.2.1 5081", "tls 2001:db8::2 5082", "tls 192.0.2.2 5082"],
        ),
        (
            "sip:carrier.example;transport=udp",
            "",
            ["udp 192.0.2.1 5060", "udp 2001:db8::2 5061", "udp 192.0.2.2 5061"],
        ),
        ("sip:carrier.example", "tcp", ["tcp 192.0.2.1 5070"]),
        ("sip:services.example", "", ["tcp 192.0.2.1 5075"]),
        ("sip:plain.example", "", ["udp 2001:db8::20 5060", "udp 192.0.2.20 5060"]),
        ("sip:plain.example", "tcp", ["tcp 2001:db8::20 5060", "tcp 192.0.2.20 5060"]),
        ("sips:plain.example", "", ["tls 2001:db8::20 5061", "tls 192.0.2.20 5061"]),
        ("sip:half.example", "", ["udp 192.0.2.1 5060"]),
        ("sip:localhost:5062", "", ["udp 127.0.0.1 5062", "udp ::1 5062"]),
    ],
)
async def test_uris_lead_where_rfc_3263_says(uri: str, transport: str, expected: list[str], tmp_path: Path) -> None:
    async with resolving(settings={"hosts": tmp_path / "none"}) as (resolver, _, _):
        assert await found(resolver, uri, transport) == expected


async def test_each_address_of_a_name_is_tried() -> None:
    async with resolving(families=(socket.AF_INET,)) as (resolver, server, _):
        server.zone["plain.example A"] = ["192.0.2.31", "192.0.2.32", "192.0.2.33"]
        assert sorted(await found(resolver, "sip:plain.example:5070")) == [
            f"udp 192.0.2.3{n} 5070" for n in (1, 2, 3)
        ]


async def test_the_certificate_is_that_of_the_domain_and_not_of_its_server() -> None:
    async with resolving() as (resolver, _, _):
        targets = await resolver.locate(Uri.parse("sip:carrier.example"))
        assert targets[0] == Target("tls", ("192.0.2.1", 5081), "carrier.example")


async def test_transports_that_we_lack_are_passed_over_or_refused() -> None:
    async with resolving(transports=("udp", "tcp"), families=(socket.AF_INET,)) as (resolver, _, _):
        assert await found(resolver, "sip:carrier.example") == ["tcp 192.0.2.1 5070"]
        assert await found(resolver, "sip:plain.example") == ["udp 192.0.2.20 5060"]
        for uri in ("sips:carrier.example", "sip:carrier.example;transport=tls", "sips:192.0.2.1"):
            with pytest.raises(LocateError, match="tls is not switched on"):
                await resolver.locate(Uri.parse(uri))


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("sip:nothing.example", "can't be resolved"),
        ("sip:absent.invalid", "can't be resolved"),
        ("sip:carrier.example;transport=sctp", "none of udp"),
        ("sips:carrier.example;transport=udp", "does not go over udp"),
        ("tel:+123", "no SIP URI"),
    ],
)
async def test_uris_that_lead_nowhere_say_why(uri: str, why: str) -> None:
    async with resolving() as (resolver, _, _):
        with pytest.raises(LocateError, match=why):
            await resolver.locate(Uri.parse(uri))


async def test_names_of_the_hosts_file_need_no_dns(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("192.0.2.40 pbx.office PBX # the old one\nfe80::1%1 junk\nnonsense line\n")
    async with resolving(settings={"hosts": hosts}) as (resolver, server, _):
        assert await found(resolver, "sip:pbx.office") == ["udp 192.0.2.40 5060"]
        assert await found(resolver, "sip:pbx", "tcp") == ["tcp 192.0.2.40 5060"]
        hosts.write_text("192.0.2.41 pbx.office and another line\n")
        assert await found(resolver, "sip:PBX.office") == ["udp 192.0.2.41 5060"]
        assert not server.asked


async def test_answers_are_kept_for_their_time_and_asked_once_for_all() -> None:
    async with resolving() as (resolver, server, clock):
        uri = "sip:carrier.example;transport=udp"
        await asyncio.gather(*(found(resolver, uri) for _ in range(20)))
        clock.now += 29
        await found(resolver, uri)
        assert set(server.asked.values()) == {1}
        clock.now += 32
        server.zone["_sip._udp.carrier.example SRV"] = ["1 1 5060 plain.example."]
        assert (await found(resolver, uri))[-1] == "udp 192.0.2.20 5060"


async def test_old_answers_serve_while_no_name_server_answers() -> None:
    async with resolving(settings={"stale_s": 3600}) as (resolver, server, clock):
        before = await found(resolver, "sip:carrier.example")
        server.silent.add("*")
        clock.now += 600
        assert await found(resolver, "sip:carrier.example") == before
        asked = server.asked.total()
        assert await found(resolver, "sip:carrier.example") == before
        assert server.asked.total() == asked
        clock.now += 3600
        with pytest.raises(LocateError):
            await found(resolver, "sip:carrier.example")


async def test_a_name_server_that_knows_no_naptr_costs_no_call() -> None:
    async with resolving() as (resolver, server, _):
        server.silent |= {"plain.example NAPTR", "_sips._tcp.plain.example SRV"}
        assert (await found(resolver, "sip:plain.example"))[-1] == "udp 192.0.2.20 5060"


async def test_no_answer_at_all_ends_in_time() -> None:
    async with resolving() as (resolver, server, _):
        server.silent.add("*")
        with pytest.raises(LocateError, match=r"plain\.example A"):
            await found(resolver, "sip:plain.example:5060")


async def test_names_in_dialogs_are_found_once_they_were_looked_up() -> None:
    async with resolving(families=(socket.AF_INET,)) as (resolver, server, clock):
        assert resolver.find("192.0.2.77", None) == ("192.0.2.77", 5060)
        assert resolver.find("Carrier.example", None) is None
        await asyncio.gather(*resolver._background.values())
        assert resolver.find("carrier.example", None) == ("192.0.2.1", 5060)
        resolver.warm("carrier.example", 5090)
        await asyncio.gather(*resolver._background.values())
        assert resolver.find("carrier.example", 5090) == ("192.0.2.9", 5090)
        # An old address is better than none, while it is looked up again.
        server.zone["carrier.example A"] = ["192.0.2.10"]
        clock.now += 100
        assert resolver.find("carrier.example", 5090) == ("192.0.2.9", 5090)
        await asyncio.gather(*resolver._background.values())
        assert resolver.find("carrier.example", 5090) == ("192.0.2.10", 5090)


async def test_names_that_can_not_be_resolved_are_not_asked_for_with_every_message() -> None:
    async with resolving() as (resolver, server, clock):
        for _ in range(5):
            assert resolver.find("absent.invalid", 5060) is None
            await asyncio.gather(*resolver._background.values())
        assert server.asked["absent.invalid A"] == 1
        clock.now += 60
        resolver.find("absent.invalid", 5060)
        await asyncio.gather(*resolver._background.values())
        assert server.asked["absent.invalid A"] == 2


async def test_a_flood_of_names_is_looked_up_a_few_at_a_time() -> None:
    async with resolving() as (resolver, server, _):
        server.silent.add("*")
        for number in range(1000):
            resolver.find(f"flood{number}.example", 5060)
        assert len(resolver._background) == 32


async def test_an_answer_with_hundreds_of_servers_is_cut_short() -> None:
    async with resolving() as (resolver, server, _):
        server.zone["_sip._udp.crowd.example SRV"] = [f"1 1 5060 s{n}.crowd.example." for n in range(900)]
        server.zone |= {f"s{n}.crowd.example A": [f"192.0.2.{n % 250}"] for n in range(900)}
        assert len(await found(resolver, "sip:crowd.example", "udp")) == 16
        assert sum(name.endswith("crowd.example A") for name in server.asked) == 16


@pytest.mark.parametrize("seed", range(4))
async def test_garbage_from_a_name_server_is_no_answer(seed: int) -> None:
    rng = random.Random(seed)

    def spoil(answer: bytes) -> bytes:
        kept = answer[: rng.choice([0, 2, 4, 12, 30, len(answer)])]
        return kept + rng.randbytes(rng.randrange(200))

    async with resolving() as (resolver, server, _):
        server.spoil = spoil
        with pytest.raises(LocateError):
            await found(resolver, "sip:carrier.example", "udp")


def test_weights_share_the_load_and_priorities_order_it() -> None:
    records = [Srv(1, 60, 1, "a"), Srv(1, 40, 1, "b"), Srv(1, 0, 1, "never"), Srv(0, 0, 1, "first")]
    rng = random.Random(7)
    orders = [[record.target for record in order_srv(records, rng)] for _ in range(2000)]
    assert all(order[0] == "first" and len(set(order)) == 4 for order in orders)
    second = Counter(order[1] for order in orders)
    assert 1100 < second["a"] < 1300
    assert 700 < second["b"] < 900
    assert second["never"] < 60
