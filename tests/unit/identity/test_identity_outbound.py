"""The INVITE of a call by way of a trunk: its addresses, headers and route."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.legs.codecs import CODECS
from bridge.legs.outbound import OutboundCall
from bridge.sip.registration import RegistrationStatus
from bridge.sip.uri import NameAddr, Uri
from bridge.trunks.outbound import DialError, asked_headers, is_number, outbound_call, profile_of
from bridge.trunks.settings import TrunkSettings
from bridge.trunks.trunks import Trunk


def trunk(**settings: Any) -> Trunk:
    return Trunk(TrunkSettings(name="carrier", **({"host": "sip.example.com"} | settings)), None)


def called(to: str, caller: str = "", diverted_by: str = "", headers: Any = (), **settings: Any) -> OutboundCall:
    to_be_called = trunk(**settings)
    profile = profile_of(to_be_called, CODECS)
    return outbound_call(to_be_called, to, profile=profile, caller=caller, diverted_by=diverted_by, headers=headers)


@pytest.mark.parametrize(
    ("to", "settings", "expected"),
    [
        ("+49 (30) 123-456", {}, "sip:+4930123456@sip.example.com"),
        ("*100#", {}, "sip:*100%23@sip.example.com"),
        ("112", {"transport": "tls", "port": 5071}, "sip:112@sip.example.com:5071;transport=tls"),
        ("reception", {}, "sip:reception@sip.example.com"),
        ("a b@c", {}, "sip:a%20b%40c@sip.example.com"),
        ("sip:bob@sip.example.com;user=phone", {}, "sip:bob@sip.example.com;user=phone"),
        ("sip:bob@else.example", {"outbound_proxy": "proxy.example"}, "sip:bob@else.example"),
    ],
)
def test_the_target_is_the_number_at_the_trunks_host(to: str, settings: dict[str, Any], expected: str) -> None:
    assert called(to, **settings).target == expected


def test_a_stranger_to_the_trunk_is_not_called_with_its_password() -> None:
    with pytest.raises(DialError, match="not the host of trunk 'carrier'"):
        called("sip:bob@else.example")
    with pytest.raises(DialError, match="it takes calls and makes none"):
        called("112", host="", networks=["10.0.0.0/8"])


def test_from_is_who_was_asked_for_else_the_trunks_number_else_its_user() -> None:
    account = {"username": "acme", "password_env": "SECRET"}
    assert called("1", "+4930", **account).from_ == "<sip:+4930@sip.example.com>"
    assert called("1", **account).from_ == "<sip:acme@sip.example.com>"
    assert called("1", from_host="acme.example").from_ == "<sip:offhook@acme.example>"


def test_identity_and_privacy_are_said_as_configured() -> None:
    open_ = called("1", "+4930", identity="preferred")
    assert open_.headers == (("P-Preferred-Identity", "<sip:+4930@sip.example.com>"),)
    hidden = called("1", "+4930", identity="asserted", anonymous=True)
    assert NameAddr.parse(hidden.from_).uri.host == "anonymous.invalid"
    assert dict(hidden.headers) == {"P-Asserted-Identity": "<sip:+4930@sip.example.com>", "Privacy": "id"}
    assert hidden.shown_from == "+4930"


def test_diversion_names_the_number_on_whose_behalf_is_called_where_wanted() -> None:
    assert called("1", "+1", diverted_by="+4930").headers == ()
    wanted = called("1", "+1", diverted_by="+4930", diversion=True)
    assert wanted.headers == (("Diversion", "<sip:+4930@sip.example.com>;reason=unconditional"),)


def test_the_route_goes_by_the_proxy_and_by_what_the_registrar_said() -> None:
    with_proxy = trunk(outbound_proxy="sip:proxy.example:5070")
    with_proxy.registration = RegistrationStatus("registered", service_route=("<sip:edge;lr>",))
    call = outbound_call(with_proxy, "1", profile=profile_of(with_proxy, CODECS))
    assert call.route == ("<sip:proxy.example:5070;lr>", "<sip:edge;lr>")
    assert call.next_hop == "sip:proxy.example:5070"
    assert called("1", outbound_proxy="sip:p;lr").route == ("<sip:p;lr>",)
    assert called("1", transport="tcp").next_hop == "sip:sip.example.com;transport=tcp"


def test_headers_of_a_request_go_out_as_far_as_they_are_allowed_and_beat_the_configured() -> None:
    one = trunk(allow_headers=["X-Order-*", "X-Tag"], headers={"X-Tag": "ours", "X-Fixed": "1"})
    assert asked_headers(one, [("x-order-id", "7"), ("X-TAG", "theirs")]) == (
        ("x-order-id", "7"),
        ("X-TAG", "theirs"),
    )
    with pytest.raises(DialError, match="X-Other is not among allow_headers"):
        asked_headers(one, [("X-Other", "1")])
    call = outbound_call(one, "1", profile=profile_of(one, CODECS), headers=[("X-TAG", "theirs")])
    assert call.headers == (("X-Fixed", "1"), ("X-TAG", "theirs"))


def test_the_legs_get_what_the_trunk_sets() -> None:
    profile = called("1", codecs=["PCMA", "L16"], ptime_ms=30, dtmf="info", transport="tls", srtp="required").profile
    assert [codec.name for codec in profile.codecs] == ["PCMA", "L16"]
    assert (profile.trunk, profile.ptime_ms, profile.dtmf, profile.srtp) == ("carrier", 30, "info", "required")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("+4930", True),
        ("*100#", True),
        ("(030) 12/34-5", True),
        ("4+9", False),
        ("bob", False),
        ("", False),
        ("-", False),
    ],
)
def test_numbers_are_told_from_names(text: str, expected: bool) -> None:
    assert is_number(text) is expected


@given(st.text(min_size=1, max_size=40), st.text(max_size=40))
def test_no_user_or_number_breaks_out_of_its_uri(to: str, caller: str) -> None:
    if to.startswith(("sip:", "sips:")):
        return
    call = called(to, caller)
    assert Uri.parse(call.target).host == "sip.example.com"
    assert NameAddr.parse(call.from_).uri.host == "sip.example.com"
