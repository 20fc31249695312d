"""The pipe protocol between pool and worker."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.providers.local.wire import MAX_PAYLOAD, Decoder, Message, WireError, encode

fields = st.dictionaries(
    st.text(max_size=8).filter(lambda key: key != "op"),
    st.one_of(st.integers(), st.text(), st.booleans(), st.lists(st.text(max_size=5), max_size=3)),
    max_size=4,
)
messages = st.lists(st.builds(Message, st.text(max_size=10), fields, st.binary(max_size=500)), max_size=5)


@given(messages, st.data())
def test_messages_cut_anywhere_come_out_as_they_went_in(sent: list[Message], data: st.DataObject) -> None:
    stream = b"".join(encode(message) for message in sent)
    decoder = Decoder()
    received = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        received += decoder.feed(stream[:size])
        stream = stream[size:]
    assert received == sent


@given(st.binary(max_size=400))
def test_garbage_is_an_error_or_incomplete_and_nothing_else(garbage: bytes) -> None:
    decoder = Decoder()
    try:
        decoder.feed(garbage)
    except WireError:
        return


def test_a_length_beyond_the_limit_is_refused_before_it_is_waited_for() -> None:
    with pytest.raises(WireError, match="at most"):
        Decoder().feed(b"\xff" * 8)


def test_a_message_beyond_the_limit_is_not_sent() -> None:
    with pytest.raises(WireError, match="at most"):
        encode(Message("job", {}, bytes(MAX_PAYLOAD + 1)))


@pytest.mark.parametrize("header", [b"[]", b"{}", b'{"op": 1}', b"nonsense"])
def test_a_header_without_an_op_is_refused(header: bytes) -> None:
    with pytest.raises(WireError, match="header"):
        Decoder().feed(len(header).to_bytes(4, "big") + bytes(4) + header)
