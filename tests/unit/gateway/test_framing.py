import struct
import zlib
from codecs import getincrementaldecoder
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from websockets.exceptions import PayloadTooBig
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Close
from websockets.frames import Frame as OracleFrame
from websockets.frames import Opcode as OracleOpcode
from websockets.protocol import OPEN, Protocol, Side

from notifier.gateway.deflate import WINDOW, Inflater, deflated
from notifier.gateway.framing import (
    FrameReader,
    FramingError,
    Message,
    Opcode,
    close_code,
    close_frame,
    text_of,
    websocket_frame,
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
    return [message for chunk in chunks for message in reader.feed(chunk) if message]


def read_on(reader: FrameReader, data: bytes) -> list[Message]:
    return [message for message in reader.feed(data) if message]


def violation(*chunks: bytes, limit: int = LIMIT) -> int:
    with pytest.raises(FramingError) as error:
        read(*chunks, limit=limit)
    return error.value.code


def split(data: bytes, places: list[int]) -> list[bytes]:
    cuts = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in pairwise(cuts)]


# Frames of clients, made by the websockets library.


@given(
    st.sampled_from([Opcode.TEXT, Opcode.BINARY]),
    LENGTHS.map(lambda length: bytes(n % 127 for n in range(length))),
    st.lists(st.integers(0, 100_000), max_size=5),
)
def test_a_message_is_read_however_its_bytes_are_split(
    opcode: Opcode, payload: bytes, places: list[int]
) -> None:
    chunks = split(masked(opcode, payload), places)

    assert read(*chunks) == [Message(opcode, payload)]


@given(st.binary(max_size=60))
def test_a_message_is_read_byte_by_byte(payload: bytes) -> None:
    sent = masked(2, payload) + masked(9, b"?") + masked(2, payload)

    expected = [
        Message(Opcode.BINARY, payload),
        Message(Opcode.PING, b"?"),
        Message(Opcode.BINARY, payload),
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
        sent += masked(2 if index == 0 else 0, fragment, fin=index == len(fragments) - 1)
        control = controls[index] if index < len(controls) else None
        if control and index < len(fragments) - 1:
            sent += masked(*control)
            expected.append(Message(Opcode(control[0].value), control[1]))
    expected.append(Message(Opcode.BINARY, b"".join(fragments)))

    assert read(*split(sent, places)) == expected


TEXTS = st.text(max_size=40).map(str.encode)


@given(st.lists(st.tuples(st.just(1), TEXTS) | st.tuples(st.just(2), st.binary(max_size=40))))
def test_many_messages_in_one_piece_are_read_in_order(messages: list[tuple[int, bytes]]) -> None:
    sent = b"".join(masked(*each) for each in messages)

    assert read(sent) == [Message(Opcode(opcode), payload) for opcode, payload in messages]


# Bytes of clients, right or wrong: the websockets library is the judge.

Outcome = tuple[list[tuple[int, bytes]], int | None]  # messages, and the close code of a violation


def per_message_deflate(window: int = WINDOW) -> PerMessageDeflate:
    return PerMessageDeflate(
        remote_no_context_takeover=True,
        local_no_context_takeover=True,
        remote_max_window_bits=15,
        local_max_window_bits=window,
    )


class Deflate(PerMessageDeflate):
    """The library's, and whether it passed over blocks behind a final one (RFC 7692, 7.2.1)."""

    passed_over = False

    def __init__(self) -> None:
        # Without context it would throw its decompressor away, which is looked into here.
        super().__init__(
            remote_no_context_takeover=False,
            local_no_context_takeover=True,
            remote_max_window_bits=15,
            local_max_window_bits=WINDOW,
        )

    def decode(self, frame: OracleFrame, *, max_size: int | None = None) -> OracleFrame:
        if frame.rsv1:
            self.decoder = zlib.decompressobj(wbits=-15)
        decoded = super().decode(frame, max_size=max_size)
        end = len(b"\x00\x00\xff\xff") if frame.fin else 0
        self.passed_over |= len(self.decoder.unused_data) > end
        return decoded


class Oracle:
    """The websockets library's protocol, with the checks of text that it leaves to its caller."""

    def __init__(self, limit: int, *, compression: bool) -> None:
        self._protocol = Protocol(Side.SERVER, state=OPEN, max_size=limit)
        self.deflate = Deflate()
        if compression:
            self._protocol.extensions = [self.deflate]
        self._parts: list[bytes] = []
        self._opcode = 0
        self.messages: list[tuple[int, bytes]] = []

    def outcome(self, sent: list[bytes]) -> Outcome:
        """Take frames one by one, up to a close frame or a violation."""
        for each in sent:
            self._protocol.receive_data(each)
            for event in self._protocol.events_received():
                assert isinstance(event, OracleFrame)
                try:
                    self._take(event)
                except UnicodeDecodeError:
                    return self.messages, 1007
            if failed := self._protocol.parser_exc:
                return self.messages, self._code(failed)
            if self._protocol.close_rcvd:
                break
        return self.messages, None

    def _take(self, event: OracleFrame) -> None:
        opcode, data = event.opcode.value, bytes(event.data)
        if opcode >= 8:
            self.messages.append((opcode, data))
            return
        if opcode:
            self._opcode, self._parts = opcode, []
        self._parts.append(data)
        whole = b"".join(self._parts)
        if self._opcode == 1:
            getincrementaldecoder("utf-8")().decode(whole, final=event.fin)
        if event.fin:
            self.messages.append((self._opcode, whole))

    @staticmethod
    def _code(failed: Exception) -> int:
        if isinstance(failed, PayloadTooBig):
            return 1009
        return 1007 if isinstance(failed, UnicodeDecodeError) else 1002


def ours(chunks: list[bytes], limit: int, *, compression: bool) -> Outcome:
    """The reader's messages, the same for any split of the bytes."""
    messages: list[tuple[int, bytes]] = []
    reader = FrameReader(limit, Inflater if compression else None)
    try:
        for chunk in chunks:
            for message in filter(None, reader.feed(chunk)):
                if message.opcode is Opcode.CLOSE:
                    close_code(message.payload)
                    return [*messages, (8, message.payload)], None
                messages.append((message.opcode.value, message.payload))
    except FramingError as error:
        return messages, error.code
    return messages, None


def header(first: int, second: int, length: int | None) -> bytes:
    if length is None:
        return bytes((first, second))
    return bytes((first, second)) + struct.pack("!H" if second & 0x7F == 126 else "!Q", length)


CLOSES = st.tuples(
    st.sampled_from([999, 1000, 1005, 1006, 1007, 1014, 1015, 3000, 4999, 5000]),
    st.sampled_from([b"", b"why", b"\xc3\xa9", b"\xc3", b"\xff"]),
).map(lambda close: close[0].to_bytes(2) + close[1])


@st.composite
def strange_frames(draw: st.DrawFn) -> bytes:
    """Frames that may break any rule of the header, of UTF-8, of deflate and of close frames."""
    opcode = draw(st.sampled_from([0, 0, 1, 1, 2, 9, 10, 8, 3, 7, 11, 15]))
    fin = draw(st.sampled_from([0x80, 0x80, 0x80, 0]))
    reserved = draw(st.sampled_from([0] * 6 + [0x40] * 4 + [0x20, 0x10]))
    texts = st.text(max_size=60).map(str.encode)
    payload = draw(texts if opcode < 2 and draw(st.booleans()) else st.binary(max_size=130))
    if opcode == 8 and draw(st.booleans()):
        payload = draw(CLOSES)
    if reserved == 0x40 and draw(st.booleans()):
        payload = deflated(payload, WINDOW)
    mask = draw(st.sampled_from([0x80] * 8 + [0]))
    short = len(payload) <= 125
    second = mask | (len(payload) if short else 126)
    head = header(fin | reserved | opcode, second, None if short else len(payload))
    key = draw(st.binary(min_size=4, max_size=4)) if mask else b""
    body = bytes(b ^ key[i % 4] for i, b in enumerate(payload)) if mask else payload
    return head + key + body


PLACES = st.lists(st.integers(0, 2000), max_size=4)


@given(st.lists(strange_frames(), max_size=8), PLACES)
def test_frames_are_taken_or_refused_as_the_library_does(
    sent: list[bytes], places: list[int]
) -> None:
    expected = Oracle(200, compression=False).outcome(sent)

    assert ours(split(b"".join(sent), places), 200, compression=False) == expected


@given(st.lists(strange_frames(), max_size=8), PLACES)
def test_so_it_is_with_compression(sent: list[bytes], places: list[int]) -> None:
    oracle = Oracle(100_000, compression=True)
    expected = oracle.outcome(sent)

    assume(not oracle.deflate.passed_over)
    assert ours(split(b"".join(sent), places), 100_000, compression=True) == expected


@st.composite
def compressed_messages(draw: st.DrawFn) -> list[bytes]:
    """Frames of a compressed message, by the library, with control frames in between."""
    sender = per_message_deflate(draw(st.integers(9, 15)))
    payload = draw(st.binary(max_size=300)) * draw(st.sampled_from([1, 1, 20, 400]))
    whole = sender.encode(OracleFrame(OracleOpcode.BINARY, payload))
    data = bytes(whole.data)
    parts = split(data, draw(PLACES)) if data else [data]
    sent = []
    for index, part in enumerate(parts):
        opcode = OracleOpcode.BINARY if index == 0 else OracleOpcode.CONT
        last = index == len(parts) - 1
        frame = masked(opcode, part, fin=last)
        sent.append(bytes((frame[0] | (0 if index else 0x40),)) + frame[1:])
        if not last and (control := draw(st.none() | CONTROLS)):
            sent.append(masked(*control))
    return sent


@given(st.lists(compressed_messages(), max_size=3), PLACES)
def test_compressed_messages_are_read_as_by_the_library(
    messages: list[list[bytes]], places: list[int]
) -> None:
    sent = [frame for message in messages for frame in message]
    expected = Oracle(LIMIT, compression=True).outcome(sent)

    assert ours(split(b"".join(sent), places), LIMIT, compression=True) == expected


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


@pytest.mark.parametrize(
    "fragments",
    [
        [b"\xf4", b"\x90"],  # nothing that follows could mend it
        [b"a\xff"],
    ],
)
def test_text_that_cannot_be_utf8_any_more_is_refused_before_its_end(
    fragments: list[bytes],
) -> None:
    sent = [masked(0 if index else 1, each, fin=False) for index, each in enumerate(fragments)]

    assert violation(*sent) == 1007


def test_text_that_ends_within_a_character_is_refused() -> None:
    assert violation(masked(1, b"\xc3", fin=False), masked(0, b"")) == 1007


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


# Frames of the server, read by the websockets library.


def parsed(sent: bytes) -> OracleFrame:
    protocol = Protocol(Side.CLIENT, state=OPEN, max_size=None)
    protocol.receive_data(sent)
    [found] = protocol.events_received()
    assert isinstance(found, OracleFrame)
    assert protocol.parser_exc is None
    return found


@given(
    st.sampled_from([Opcode.TEXT, Opcode.BINARY]),
    LENGTHS.map(lambda length: bytes(n % 127 for n in range(length))),
)
def test_a_servers_frame_is_read_by_clients(opcode: Opcode, payload: bytes) -> None:
    found = parsed(websocket_frame(opcode, payload))

    assert (found.opcode.value, bytes(found.data), found.fin) == (opcode, payload, True)


@pytest.mark.parametrize(
    ("length", "code"), [(0, 0), (125, 125), (126, 126), (65_535, 126), (65_536, 127)]
)
def test_a_length_is_written_in_as_few_bytes_as_it_needs(length: int, code: int) -> None:
    assert websocket_frame(Opcode.TEXT, bytes(length))[1] == code  # RFC 6455, section 5.2


@given(st.sampled_from([Opcode.PING, Opcode.PONG]), st.binary(max_size=125))
def test_a_servers_control_frame_is_read_by_clients(opcode: Opcode, payload: bytes) -> None:
    found = parsed(websocket_frame(opcode, payload))

    assert (found.opcode.value, bytes(found.data)) == (opcode, payload)


@pytest.mark.parametrize(
    ("reason", "expected"), [("draining", "draining"), ("", ""), ("x" * 500, "x" * 123)]
)
def test_a_servers_close_frame_is_read_by_clients(reason: str, expected: str) -> None:
    found = Close.parse(bytes(parsed(close_frame(4000, reason)).data))

    assert (found.code, found.reason) == (4000, expected)


def test_a_reason_is_cut_between_characters() -> None:
    assert Close.parse(bytes(parsed(close_frame(1002, "a" + "é" * 100)).data)).code == 1002


def test_a_reader_that_stops_half_way_gets_the_others_with_the_next_call() -> None:
    reader = FrameReader(LIMIT)
    sent = b"".join(masked(1, text) for text in (b"a", b"b", b"c"))

    first = next(iter(reader.feed(sent[:-2])))
    others = list(reader.feed(sent[-2:]))

    assert [each and each.payload for each in (first, *others)] == [b"a", b"b", b"c"]


def test_each_frame_is_told_of_though_it_completes_no_message() -> None:
    sent = (
        masked(1, b"a", fin=False)
        + masked(0, b"", fin=False) * 3
        + masked(9, b"")
        + masked(0, b"b")
    )

    told = list(FrameReader(LIMIT).feed(sent))

    assert told == [None] * 4 + [Message(Opcode.PING, b""), Message(Opcode.TEXT, b"ab")]


def test_a_message_that_drips_in_is_not_copied_with_each_drop() -> None:
    reader, sent = FrameReader(LIMIT), masked(1, b"x" * 60_000)
    list(reader.feed(sent[:10]))
    buffer = reader._buffer  # noqa: SLF001  # no promise of how long a copy takes can be tested

    for at in range(10, 1_000):
        list(reader.feed(sent[at : at + 1]))

    assert reader._buffer is buffer  # noqa: SLF001
    assert read_on(reader, sent[1_000:]) == [Message(Opcode.TEXT, b"x" * 60_000)]


def test_compressed_fragments_are_held_to_the_limit_as_they_are_sent() -> None:
    nothing = b"\x00\x00\x00\xff\xff" * 10  # blocks without content
    reader = FrameReader(100, Inflater)
    first = bytearray(masked(1, nothing, fin=False))
    first[0] |= 0x40

    list(reader.feed(bytes(first)))
    list(reader.feed(masked(0, nothing, fin=False)))
    with pytest.raises(FramingError) as error:
        list(reader.feed(masked(0, nothing, fin=False)))

    assert error.value.code == 1009
