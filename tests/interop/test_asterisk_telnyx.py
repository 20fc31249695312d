"""The shipped Telnyx trunks, by credentials and by address, with a stand-in for Telnyx's SIP proxy."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from asterisk_shop import AsteriskShop
from free_ports import free_port
from stasis_application import Application
from telnyx_stand_in import ELSEWHERE, HOST, PASSWORD, USER, StandIn

NUMBER = "+4930999"


@pytest.fixture
def trunk(tmp_path: Path) -> Iterator[Callable[[str], tuple[AsteriskShop, StandIn]]]:
    """Starts the shop with one of the two trunks filled in, its desk at the queue, and the carrier."""
    started: list[AsteriskShop | StandIn] = []

    def start(kind: str) -> tuple[AsteriskShop, StandIn]:
        carrier = StandIn(free_port(), challenges=kind == "credentials")
        started.append(carrier)
        shop = shop_with(tmp_path, carrier, kind)
        started.append(shop)
        shop.cli("queue add member PJSIP/desk to office")
        return shop, carrier

    yield start
    for one in reversed(started):
        one.stop() if isinstance(one, AsteriskShop) else one.close()


def shop_with(folder: Path, carrier: StandIn, kind: str) -> AsteriskShop:
    file = f"offhook/pjsip-telnyx-{kind}.conf"
    addresses = [("192.76.120.10\n", f"{HOST}\n", 1), ("match = 64.16.250.10\n", "", 1)]
    host = [("sip:sip.telnyx.com", f"sip:{HOST}:{carrier.port}", {"credentials": 2, "ip": 1}[kind])]
    names = [("= YOUR-TELNYX-USER\nfrom_domain", f"= {USER}\nfrom_domain", 1)]
    names.append(("sip:YOUR-TELNYX-USER@sip.telnyx.com", f"sip:{USER}@{HOST}:{carrier.port}", 1))

    class Shop(AsteriskShop):
        def _install(self) -> None:
            super()._install()
            (self.etc / "offhook/secrets/telnyx.conf").write_text(
                f"[telnyx]\ntype = auth\nauth_type = userpass\nusername = {USER}\npassword = {PASSWORD}\n"
            )

    return Shop(
        folder / "asterisk",
        uncommented=[("pjsip.conf", f"#include {file}")],
        replaced={file: addresses + host + (names if kind == "credentials" else [])},
    )


def registered_contact(shop: AsteriskShop, carrier: StandIn) -> str:
    # By itself it does so within ten seconds.
    shop.cli("pjsip send register telnyx")
    shop.program.wait_for(lambda: carrier.registered, 30, "registration")
    shop.program.wait_for(lambda: "Registered" in shop.cli("pjsip show registrations"), 30, "its success")
    return carrier.registered[-1]


@pytest.mark.parametrize("kind", ["credentials", "ip"])
def test_calls_go_out_and_come_in_with_audio(trunk: Callable[[str], tuple[AsteriskShop, StandIn]], kind: str) -> None:
    shop, carrier = trunk(kind)
    assert [line for line in shop.problems() if "pjsip" in line] == []
    if kind == "credentials":
        registered_contact(shop, carrier)
    shop.originate("PJSIP/+4930123456@telnyx", "tone@world")
    shop.program.wait_for(lambda: shop.heard_s("tone") > 0.5, 30, "its own tone from the carrier")
    assert carrier.called == [f"sip:+4930123456@{HOST}:{carrier.port}"]
    assert carrier.challenged == {"credentials": 1, "ip": 0}[kind]
    carrier.invite(f"sip:{NUMBER}@127.0.0.1:{shop.sip_port}", f"<sip:{NUMBER}@127.0.0.1>", shop.sip_port)
    shop.program.wait_for_line(f"[{NUMBER}@offhook:1]", 30)
    shop.program.wait_for(lambda: shop.heard_s("desk") > 0.5, 30, "the desk's own tone from the caller")


def test_calls_to_the_contact_that_registered_reach_the_agent_from_wherever_they_come(
    trunk: Callable[[str], tuple[AsteriskShop, StandIn]],
) -> None:
    shop, carrier = trunk("credentials")
    contact = registered_contact(shop, carrier)
    assert contact.startswith("sip:telnyx@")
    assert ";line=" in contact
    with Application(shop) as application:
        # The name is the caller's to choose.
        named = f'"Doe, J. (home) @<" <sip:{NUMBER}@{HOST};user=phone>'
        for to, did in ((named, NUMBER), (f"<sip:{USER}@{HOST}>", ""), (f"sip:4930999@{HOST}", "4930999")):
            carrier.invite(contact, to, shop.sip_port, host=ELSEWHERE)
            start = application.started()
            assert start["args"] == [f"did={did}"]
            application.post(f"/channels/{start['channel']['id']}/answer")
            # Nobody there: people take it.
            application.give_back(start["channel"]["id"], {"OFFHOOK_STATUS": "REFUSED"})
    shop.program.wait_for(lambda: shop.heard_s("desk") > 0.5, 30, "the desk's own tone from the caller")
    assert len(carrier.answered) == 3
