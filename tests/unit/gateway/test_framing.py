import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import PayloadTooBig
from websockets.exceptions import ProtocolError as OracleError
from websockets.frames import Close
from websockets.frames import Frame as OracleFrame
from websockets.frames import Opcode as OracleOpcode
from websockets.protocol import OPEN, Protocol, Side

from notifier.gateway.framing import (
    FrameReader,
    FramingError,
    Message,
    Opcode,
    close_code,
    close_frame,
    frame,
    text_of,
)

LIMIT = 70_000
LENGTHS = st.integers(0, 300) | st.sampled_from([125, 126, 127, 65_535, 65_536, LIMIT])
CONTROLS = st.tuples(
    st.sampled_from([OracleOpcode.PING, OracleOpcode.PONG]), st.binary(max_size=125)
)


def masked(opcode: int, payload: bytes, *, fin: bool = True) -> bytes:
    """Make a client's frame, by the library that clients use."""
    return OracleFrame(OracleOpcode(opcode), payload, fin).serialize(mask=True)


def read(*chunks: bytes, limit: int = LIMIT) -> list[Message]:
    reader = FrameReader(limit)
    return [message for chunk in chunks for message in reader.feed(chunk)]


def violation(*chunks: bytes, limit: int = LIMIT) -> int:
    with pytest.raises(FramingError) as error:
        read(*chunks, limit=limit)
    return error.value.code


def split(data: bytes, places: list[int]) -> list[bytes]:
    cuts = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in pairwise(cuts)]


# What clients send, made by the websockets library.


@given(
    st.sampled_from([Opcode.TEXT, Opcode.BINARY]),
    LENGTHS.map(lambda length: bytes(n % 251 for n in range(length))),
    st.lists(st.integers(0, 100_000), max_size=5),
)
def test_a_message_is_read_however_its_bytes_are_split(
    opcode: Opcode, payload: bytes, places: list[int]
) -> None:
    chunks = split(masked(opcode, payload), places)

    assert read(*chunks) == [Message(opcode, payload)]


@given(st.binary(max_size=60), st.data())
def test_a_message_is_read_byte_by_byte(payload: bytes, data: st.DataObject) -> None:
    del data
    sent = masked(1, payload) + masked(9, b"?") + masked(1, payload)

    expected = [
        Message(Opcode.TEXT, payload),
        Message(Opcode.PING, b"?"),
        Message(Opcode.TEXT, payload),
    ]
    assert read(*(bytes((byte,)) for byte in sent)) == expected


@given(
    st.lists(st.binary(max_size=200), min_size=2, max_size=6),
    st.lists(st.none() | CONTROLS, max_size=5),
    st.lists(st.integers(0, 2000), max_size=8),
)
def test_fragments_are_joined_and_control_frames_come_through_between_them(
    fragments: list[bytes],
    controls: list[tuple[OracleOpcode, bytes] | None],
    places: list[int],
) -> None:
    sent, expected = b"", list[Message]()
    for index, fragment in enumerate(fragments):
        sent += masked(1 if index == 0 else 0, fragment, fin=index == len(fragments) - 1)
        control = controls[index] if index < len(controls) else None
        if control and index < len(fragments) - 1:
            sent += masked(*control)
            expected.append(Message(Opcode(control[0].value), control[1]))
    expected.append(Message(Opcode.TEXT, b"".join(fragments)))

    assert read(*split(sent, places)) == expected


@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=40)), max_size=8))
def test_many_messages_in_one_piece_are_read_in_order(messages: list[tuple[int, bytes]]) -> None:
    sent = b"".join(masked(*each) for each in messages)

    assert read(sent) == [Message(Opcode(opcode), payload) for opcode, payload in messages]


def oracle(sent: bytes, limit: int) -> tuple[list[tuple[int, bytes, bool]], int | None]:
    """What the websockets library makes of a client's bytes: frames, and its close code."""
    protocol = Protocol(Side.SERVER, state=OPEN, max_size=limit)
    protocol.receive_data(sent)
    frames = [each for each in protocol.events_received() if isinstance(each, OracleFrame)]
    failed = protocol.parser_exc
    code = None
    if isinstance(failed, PayloadTooBig):
        code = 1009
    elif isinstance(failed, OracleError):
        code = 1002
    return [(each.opcode.value, bytes(each.data), each.fin) for each in frames], code


def header(first: int, second: int, length: int | None) -> bytes:
    if length is None:
        return bytes((first, second))
    return bytes((first, second)) + struct.pack("!H" if second & 0x7F == 126 else "!Q", length)


@st.composite
def strange_frames(draw: st.DrawFn) -> bytes:
    """Frames that may break any rule of the header."""
    payload = draw(st.binary(max_size=130))
    fin = draw(st.sampled_from([0x80, 0x80, 0x80, 0]))
    reserved = draw(st.sampled_from([0] * 8 + [0x40, 0x20, 0x10]))
    opcode = draw(st.sampled_from([0, 0, 1, 1, 2, 9, 10, 3, 7, 11, 15]))
    mask = draw(st.sampled_from([0x80] * 8 + [0]))
    short = len(payload) <= 125
    second = mask | (len(payload) if short else 126)
    head = header(fin | reserved | opcode, second, None if short else len(payload))
    key = draw(st.binary(min_size=4, max_size=4)) if mask else b""
    body = bytes(b ^ key[i % 4] for i, b in enumerate(payload)) if mask else payload
    return head + key + body


@given(st.lists(strange_frames(), max_size=8), st.lists(st.integers(0, 2000), max_size=4))
def test_what_is_taken_and_what_is_a_violation_is_what_the_library_says(
    sent: list[bytes], places: list[int]
) -> None:
    whole = b"".join(sent)
    frames, code = oracle(whole, 200)

    messages, found = list[Message](), None
    reader = FrameReader(200)
    try:
        for chunk in split(whole, places):
            messages.extend(reader.feed(chunk))
    except FramingError as error:
        found = error.code

    assert found == code
    controls = [(opcode, data) for opcode, data, _ in frames if opcode >= 8]
    assert [(m.opcode, m.payload) for m in messages if m.opcode >= 8] == controls
    parts, joined = b"", list[bytes]()
    for opcode, data, fin in frames:
        if opcode < 8:
            parts += data
            if fin:
                joined.append(parts)
                parts = b""
    assert [m.payload for m in messages if m.opcode < 8] == joined


# Each violation has its close code.


@pytest.mark.parametrize(
    "sent",
    [
        b"\x83\x80mask",
        b"\x87\x80mask",
        b"\x8b\x80mask",
        b"\xc1\x80mask",
        b"\xa1\x80mask",
        b"\x91\x80mask",
        b"\x81\x00",
        b"\x81\x01a",
        b"\x09\x80mask",
        b"\x08\x80mask",
        b"\x89\xfe\x00\x7emask",
        b"\x88\xff",
        b"\x80\x80mask",
    ],
)
def test_a_broken_frame_is_a_protocol_error(sent: bytes) -> None:
    assert violation(sent) == 1002


def test_a_message_that_begins_within_another_is_a_protocol_error() -> None:
    assert violation(masked(1, b"a", fin=False), masked(1, b"b")) == 1002


def test_a_continuation_after_the_end_is_a_protocol_error() -> None:
    sent = masked(1, b"a", fin=False) + masked(0, b"b")

    assert violation(sent, masked(0, b"c")) == 1002


def test_a_message_over_the_limit_is_refused_before_it_has_arrived() -> None:
    sent = masked(1, b"x" * 101)

    assert violation(sent[:2], sent[2:4], limit=100) == 1009


def test_a_message_at_the_limit_is_taken() -> None:
    assert read(masked(1, b"x" * 100), limit=100) == [Message(Opcode.TEXT, b"x" * 100)]


def test_fragments_together_are_held_to_the_limit() -> None:
    parts = [masked(1, b"x" * 60, fin=False), masked(0, b"x" * 41)]

    assert violation(*parts, limit=100) == 1009


def test_a_length_of_64_bits_is_over_the_limit() -> None:
    assert violation(b"\x81\xff" + b"\xff" * 8, limit=100) == 1009


def test_fragments_are_bounded_in_number_too() -> None:
    # Empty ones would else be held without end, and looked through with each new one.
    endless = masked(1, b"", fin=False) + masked(0, b"", fin=False) * 2_000

    assert violation(endless, limit=100) in (1002, 1009)


def test_text_that_is_no_utf8_has_a_code_of_its_own() -> None:
    with pytest.raises(FramingError) as error:
        text_of(b"\xff")

    assert error.value.code == 1007


# Close frames.


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1011, 1014, 3000, 4000, 4999])
def test_the_code_of_a_close_frame_is_read(code: int) -> None:
    assert close_code(Close(code, "why").serialize()) == code


def test_a_close_frame_without_a_code_means_1005() -> None:
    assert close_code(b"") == 1005


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535])
def test_codes_that_must_not_be_sent_are_a_protocol_error(code: int) -> None:
    with pytest.raises(FramingError) as error:
        close_code(struct.pack("!H", code))

    assert error.value.code == 1002


def test_half_a_code_is_a_protocol_error() -> None:
    with pytest.raises(FramingError) as error:
        close_code(b"\x03")

    assert error.value.code == 1002


def test_a_reason_that_is_no_utf8_has_a_code_of_its_own() -> None:
    with pytest.raises(FramingError) as error:
        close_code(struct.pack("!H", 1000) + b"\xff")

    assert error.value.code == 1007


# What the server sends, read by the websockets library.


def parsed(sent: bytes) -> OracleFrame:
    protocol = Protocol(Side.CLIENT, state=OPEN, max_size=None)
    protocol.receive_data(sent)
    [found] = protocol.events_received()
    assert isinstance(found, OracleFrame)
    assert protocol.parser_exc is None
    return found


@given(
    st.sampled_from([Opcode.TEXT, Opcode.BINARY]),
    LENGTHS.map(lambda length: bytes(n % 251 for n in range(length))),
)
def test_a_servers_frame_is_read_by_clients(opcode: Opcode, payload: bytes) -> None:
    found = parsed(frame(opcode, payload))

    assert (found.opcode.value, bytes(found.data), found.fin) == (opcode, payload, True)


@pytest.mark.parametrize(
    ("length", "code"), [(0, 0), (125, 125), (126, 126), (65_535, 126), (65_536, 127)]
)
def test_a_length_is_written_in_as_few_bytes_as_it_needs(length: int, code: int) -> None:
    assert frame(Opcode.TEXT, bytes(length))[1] == code  # RFC 6455, section 5.2


@given(st.sampled_from([Opcode.PING, Opcode.PONG]), st.binary(max_size=125))
def test_a_servers_control_frame_is_read_by_clients(opcode: Opcode, payload: bytes) -> None:
    found = parsed(frame(opcode, payload))

    assert (found.opcode.value, bytes(found.data)) == (opcode, payload)


@pytest.mark.parametrize(
    ("reason", "expected"), [("draining", "draining"), ("", ""), ("x" * 500, "x" * 123)]
)
def test_a_servers_close_frame_is_read_by_clients(reason: str, expected: str) -> None:
    found = Close.parse(bytes(parsed(close_frame(4000, reason)).data))

    assert (found.code, found.reason) == (4000, expected)


def test_a_reason_is_cut_between_characters() -> None:
    assert Close.parse(bytes(parsed(close_frame(1002, "a" + "é" * 100)).data)).code == 1002


def test_whoever_stops_half_way_gets_the_others_with_the_next_call() -> None:
    reader = FrameReader(LIMIT)
    sent = b"".join(masked(1, text) for text in (b"a", b"b", b"c"))

    first = next(iter(reader.feed(sent[:-2])))
    others = [message.payload for message in reader.feed(sent[-2:])]

    assert [first.payload, *others] == [b"a", b"b", b"c"]
