"""URIs, name-addrs, Via and lists."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.sip.errors import SipSyntaxError
from bridge.sip.flow import Flow
from bridge.sip.grammar import format_params, parse_params, quote, split_list, unquote
from bridge.sip.uri import NameAddr, Uri
from bridge.sip.via import Via


@pytest.mark.parametrize(
    "text",
    [
        "sip:alice@example.com",
        "sip:example.com",
        "sips:alice:secret@example.com:5061;transport=tcp;lr?subject=x&priority=urgent",
        "sip:+15551234;phone-context=example.com@gw.example.com;user=phone",
        "sip:user;par=u%40example.net@example.com",
        "sip:[2001:db8::10]:5070",
        "sip:alice@[2001:db8::10];lr",
        "sip:*98#@pbx",
        "tel:+1-201-555-0123;phone-context=example.com",
        "urn:service:sos",
    ],
)
def test_uri_is_written_as_it_was_read(text: str) -> None:
    assert str(Uri.parse(text)) == text


def test_uri_parts() -> None:
    uri = Uri.parse("SIP:+1555%20x;ext=3:pw@Example.COM:5070;Transport=TCP;lr?a=b")
    assert (uri.scheme, uri.user, uri.password, uri.host, uri.port) == (
        "sip", "+1555%20x;ext=3", "pw", "example.com", 5070,
    )  # fmt: skip
    assert uri.user_text == "+1555 x"
    assert uri.param("transport") == "TCP"
    assert uri.is_loose_router
    assert uri.headers == "a=b"
    assert Uri.parse("sip:[::1]:5060").host_address == "::1"
    assert Uri.parse("tel:+15551234").user_text == "+15551234"


@pytest.mark.parametrize(
    "text",
    ["", "sip", "sip:", "sip:@example.com", "sip:a b@example.com", "sip:a@b:99999", "sip:a@b:x", "sip:a@",
     "<sip:a@b>", "sip:a@[::1", "1sip:a@b", "sip:a@b@c d", "tel:", "sip:a@b?x y"],
)  # fmt: skip
def test_malformed_uri_is_refused(text: str) -> None:
    with pytest.raises(SipSyntaxError):
        Uri.parse(text)


def test_stray_semicolon_is_forgiven() -> None:
    assert Uri.parse("sip:a@b;") == Uri.parse("sip:a@b")


@pytest.mark.parametrize(
    ("text", "name", "uri", "tag"),
    [
        ("<sip:a@b>", "", "sip:a@b", None),
        ("sip:a@b;tag=x", "", "sip:a@b", "x"),
        ('"V1210228090000000101" <sip:1555@10.0.0.1>;tag=as7', "V1210228090000000101", "sip:1555@10.0.0.1", "as7"),
        ('"A \\"B\\" \\\\ <x>, y"<sip:a@b;lr>;tag=1;x="a;b"', 'A "B" \\ <x>, y', "sip:a@b;lr", "1"),
        ("Alice Smith  < sip:a@b > ; tag = q", "Alice Smith", "sip:a@b", "q"),
        ("caller<sip:caller@example.com>", "caller", "sip:caller@example.com", None),
        ("<tel:+15551234>;tag=z", "", "tel:+15551234", "z"),
        ("Änne <sip:a@b>", "Änne", "sip:a@b", None),
    ],
)  # fmt: skip
def test_name_addr_forms(text: str, name: str, uri: str, tag: str | None) -> None:
    parsed = NameAddr.parse(text)
    assert (parsed.display_name, str(parsed.uri), parsed.tag) == (name, uri, tag)
    assert NameAddr.parse(str(parsed)) == parsed


@pytest.mark.parametrize(
    "text",
    ['"unclosed <sip:a@b>', "<sip:a@b", "sip:a@b>", "a, b <sip:a@b>", "sip:a@b?x=y", "<>", "<sip:a@b> rubbish", ""],
)
def test_malformed_name_addr_is_refused(text: str) -> None:
    with pytest.raises(SipSyntaxError):
        NameAddr.parse(text)


def test_list_is_split_at_commas_outside_quotes_and_brackets() -> None:
    text = '"A, B" <sip:a@b;x=1,2>;q=0.5, <sip:c@d?x=,>,, sip:e@f'
    assert split_list(text) == ['"A, B" <sip:a@b;x=1,2>;q=0.5', "<sip:c@d?x=,>", "sip:e@f"]
    with pytest.raises(SipSyntaxError):
        split_list('"a, b')


@pytest.mark.parametrize(
    "attack", ['"' * 20_000, '"' + "\\" * 20_001, "<" * 20_000, ";a" * 10_000 + "=", 'a"b' * 9_000]
)
def test_hostile_text_takes_no_time_to_refuse(attack: str) -> None:
    # Exponential backtracking would hang here, and the suite's timeout would tell.
    for parse in (split_list, parse_params, NameAddr.parse, Uri.parse, Via.parse):
        for text in (attack, f"x,{attack}", f";a={attack}"):
            try:
                parse(text)
            except SipSyntaxError:
                continue


@given(st.text())
def test_quoting_is_undone_by_unquoting(text: str) -> None:
    assert unquote(quote(text)) == text


_word = st.text("abcXYZ019-.%_~", min_size=1, max_size=8)
Params = tuple[tuple[str, str | None], ...]
_params = st.lists(st.tuples(_word.map(str.lower), st.none() | _word | _word.map(quote)), max_size=4).map(tuple)


@given(_params)
def test_parameters_survive_writing_and_reading(params: Params) -> None:
    assert parse_params(format_params(params)) == params


@given(
    st.builds(
        Uri,
        st.sampled_from(["sip", "sips"]),
        _word.map(lambda w: "h" + w.lower().replace("%", "").replace("~", "")),
        st.just("") | _word,
        st.none(),
        st.none() | st.integers(0, 65535),
        _params,
    ),
    st.text(st.characters(min_codepoint=32, exclude_characters="\x7f", exclude_categories=["Cs"])),
    _params,
)
def test_name_addr_survives_writing_and_reading(uri: Uri, name: str, params: Params) -> None:
    address = NameAddr(uri, name, params)
    assert NameAddr.parse(str(address)) == address


def test_via_with_odd_spacing_is_read() -> None:
    via = Via.parse("SIP  / 2.0 / uDp  192.0.2.2 : 5061 ; branch = z9hG4bKx ;rport")
    assert (via.transport, via.host, via.port, via.branch) == ("UDP", "192.0.2.2", 5061, "z9hG4bKx")
    assert str(Via.parse("SIP/2.0/TCP [2001:db8::9:1]:5060;branch=b")) == "SIP/2.0/TCP [2001:db8::9:1]:5060;branch=b"


@pytest.mark.parametrize("text", ["", "SIP/2.0/UDP", "SIP/x/UDP a", "UDP a", "SIP/2.0/UDP a b", "SIP/2.0/UDP a:x"])
def test_malformed_via_is_refused(text: str) -> None:
    with pytest.raises(SipSyntaxError):
        Via.parse(text)


FLOW = Flow("udp", ("198.51.100.7", 34567), ("192.0.2.2", 5060))


def test_response_goes_to_the_source_port_when_rport_was_asked_for() -> None:
    via = Via.parse("SIP/2.0/UDP 10.0.0.1:5060;rport;branch=x").stamped(FLOW)
    assert (via.param("received"), via.param("rport")) == ("198.51.100.7", "34567")
    assert via.reply_flow(FLOW).remote == ("198.51.100.7", 34567)


@pytest.mark.parametrize(
    ("sent_by", "port"), [("10.0.0.1:5080", 5080), ("10.0.0.1", 5060), ("pbx.example.com", 5060)]
)
def test_response_goes_to_received_and_the_sent_by_port_without_rport(sent_by: str, port: int) -> None:
    via = Via.parse(f"SIP/2.0/UDP {sent_by};branch=x").stamped(FLOW)
    assert via.param("received") == "198.51.100.7"
    assert via.param("rport") is None
    assert via.reply_flow(FLOW).remote == ("198.51.100.7", port)


def test_a_peer_cannot_choose_where_responses_go() -> None:
    via = Via.parse("SIP/2.0/UDP 198.51.100.7;received=203.0.113.9;branch=x").stamped(FLOW)
    assert via.param("received") is None
    assert via.reply_flow(FLOW).remote == ("198.51.100.7", 5060)
