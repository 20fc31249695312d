"""Opus (RFC 6716, RFC 7587) in mono at 16 kHz, by a thin binding of libopus; without the library it isn't offered."""

import ctypes
import importlib.util
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

SAMPLE_RATE = 16000
"""libopus codes straight at this rate: telephony's wideband, and what speech recognition wants."""

MAX_PACKET = 1275
"""Bytes of one frame (RFC 6716 3.2.1)."""

MAX_SAMPLES = SAMPLE_RATE * 120 // 1000
"""A packet holds 120 ms at most (RFC 6716 3.2.5)."""

BIT_RATE = 24_000
"""Wideband speech, as RFC 7587 3.1.1 advises (16 to 20 kbit/s), and room for redundancy."""

LOWEST_BIT_RATE, HIGHEST_BIT_RATE = 6_000, 510_000

COMPLEXITY = 1
"""Of 0 to 10. Measured per call-second: 1.7 ms of CPU at 1, 4.5 at 3, 8 at 9; the gain is not heard in speech."""

EXPECTED_LOSS_PERCENT = 10
"""What in-band redundancy is made for, where the far end wants it."""

DTX_BYTES = 2
"""A packet no longer than this need not be sent (libopus' opus_encode)."""

_APPLICATION_VOIP = 2048
_SIGNAL_VOICE = 3001
_SET_BITRATE, _SET_MAX_BANDWIDTH, _SET_VBR, _SET_COMPLEXITY = 4002, 4004, 4006, 4010
_SET_INBAND_FEC, _SET_PACKET_LOSS, _SET_DTX, _SET_SIGNAL = 4012, 4014, 4016, 4024
_NARROWBAND, _MEDIUMBAND, _WIDEBAND = 1101, 1102, 1103

_BUNDLES = (("opuslib_next", "_native/libopus.so"), ("opuslib_next", "_native/libopus.dylib"))
"""Packages that carry the library, and where; they are not imported."""

_SYSTEM = ("libopus.so.0", "libopus.0.dylib")


@dataclass(frozen=True, slots=True)
class OpusParameters:
    """What the far end wants of what it gets (RFC 7587 6.1)."""

    bit_rate: int = BIT_RATE
    fec: bool = False
    dtx: bool = False
    constant: bool = False
    playback_rate: int = 48000
    """Hz of audio above which the far end hears nothing."""

    @classmethod
    def of_fmtp(cls, fmtp: str) -> "OpusParameters":
        """From format parameters; unknown ones, and values that are none, are passed over. Channels do not matter:
        we send mono, which a decoder of stereo takes as well."""
        values = {}
        for part in fmtp.split(";"):
            name, _, value = part.partition("=")
            value = value.strip()
            if value.isascii() and value.isdigit() and len(value) < 10:
                values[name.strip().lower()] = int(value)
        limit = values.get("maxaveragebitrate", BIT_RATE)
        return cls(
            bit_rate=max(LOWEST_BIT_RATE, min(BIT_RATE, limit)),
            fec=values.get("useinbandfec") == 1,
            dtx=values.get("usedtx") == 1,
            constant=values.get("cbr") == 1,
            playback_rate=values.get("maxplaybackrate", 48000),
        )


@lru_cache(maxsize=1)
def _library() -> ctypes.PyDLL | None:
    """libopus, looked for once: the one that a package of ours brings, else the system's."""
    places = []
    for package, path in _BUNDLES:
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            places.append(str(Path(folder) / path))
    for place in (*places, *_SYSTEM):
        with suppress(OSError, AttributeError):
            # PyDLL keeps the GIL: a call takes 30 us, and giving the GIL to a busy thread would cost the clock ms.
            return _declare(ctypes.PyDLL(place))
    return None


def _declare(library: ctypes.PyDLL) -> ctypes.PyDLL:
    state, number, data = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
    library.opus_encoder_get_size.argtypes = library.opus_decoder_get_size.argtypes = [number]
    library.opus_encoder_init.argtypes = [state, number, number, number]
    library.opus_decoder_init.argtypes = [state, number, number]
    library.opus_encode.argtypes = [state, data, number, state, number]
    library.opus_decode.argtypes = [state, data, number, state, number, number]
    return library


def available() -> bool:
    """Whether libopus was found."""
    return _library() is not None


def _loaded() -> ctypes.PyDLL:
    library = _library()
    if library is None:
        raise RuntimeError("libopus is not installed: install opuslib-next-bundled, or the system's libopus0")
    return library


def redundant_samples(payload: bytes) -> int:
    """How many samples of the packet before it a payload brings along (RFC 6716 4.2.4), 0 for none. Packets of more
    than one frame are taken for having none: telephony sends one."""
    if len(payload) < 2 or payload[0] & 0x03:
        return 0
    configuration = payload[0] >> 3
    if configuration < 12:
        ms = (10, 20, 40, 60)[configuration % 4]
    elif configuration < 16:
        ms = (10, 20)[configuration % 2]
    else:
        return 0
    # One bit of voice activity for each 20 ms, then that of redundancy (of the middle channel).
    flags = -(-ms // 20)
    return SAMPLE_RATE * ms // 1000 if payload[1] >> (7 - flags) & 1 else 0


class OpusEncoder:
    """One stream's encoder: 10, 20, 40 or 60 ms of PCM to a payload, which is empty where nothing need be sent (DTX).

    Raises RuntimeError without the library."""

    __slots__ = ("_address", "_encode", "_out", "_state")

    def __init__(self, parameters: OpusParameters) -> None:
        library = _loaded()
        self._state = ctypes.create_string_buffer(library.opus_encoder_get_size(1))
        self._address = ctypes.addressof(self._state)
        self._out = ctypes.create_string_buffer(MAX_PACKET)
        self._encode = library.opus_encode
        failed = library.opus_encoder_init(self._address, SAMPLE_RATE, 1, _APPLICATION_VOIP)
        if failed:
            raise RuntimeError(f"libopus refused to make an encoder: error {failed}")
        rate = parameters.playback_rate
        band = _NARROWBAND if rate <= 8000 else _MEDIUMBAND if rate <= 12000 else _WIDEBAND
        for request, value in (
            (_SET_BITRATE, parameters.bit_rate),
            (_SET_MAX_BANDWIDTH, band),
            (_SET_VBR, int(not parameters.constant)),
            (_SET_COMPLEXITY, COMPLEXITY),
            (_SET_SIGNAL, _SIGNAL_VOICE),
            (_SET_INBAND_FEC, int(parameters.fec)),
            (_SET_PACKET_LOSS, EXPECTED_LOSS_PERCENT if parameters.fec else 0),
            (_SET_DTX, int(parameters.dtx)),
        ):
            # The function is variadic: types are given with each call.
            library.opus_encoder_ctl(ctypes.c_void_p(self._address), ctypes.c_int(request), ctypes.c_int(value))

    def __call__(self, pcm: bytes) -> bytes:
        size = self._encode(self._address, pcm, len(pcm) // 2, ctypes.addressof(self._out), MAX_PACKET)
        return ctypes.string_at(self._out, size) if size > DTX_BYTES else b""


class OpusDecoder:
    """One stream's decoder, stereo mixed to mono by libopus. Raises RuntimeError without the library."""

    __slots__ = ("_address", "_decode", "_out", "_state")

    def __init__(self) -> None:
        library = _loaded()
        self._state = ctypes.create_string_buffer(library.opus_decoder_get_size(1))
        self._address = ctypes.addressof(self._state)
        self._out = ctypes.create_string_buffer(2 * MAX_SAMPLES)
        self._decode = library.opus_decode
        failed = library.opus_decoder_init(self._address, SAMPLE_RATE, 1)
        if failed:
            raise RuntimeError(f"libopus refused to make a decoder: error {failed}")

    def __call__(self, payload: bytes) -> bytes:
        return self._run(payload, MAX_SAMPLES, fec=0) if payload else b""

    def recover(self, payload: bytes, samples: int) -> bytes:
        """The audio of the packet before `payload`, which got lost, from the redundancy in `payload`; empty if there
        is none, or it would be more than `samples` samples. `payload` itself is decoded next."""
        count = redundant_samples(payload)
        return self._run(payload, count, fec=1) if 0 < count <= samples else b""

    def _run(self, payload: bytes, samples: int, *, fec: int) -> bytes:
        out = ctypes.addressof(self._out)
        count = self._decode(self._address, payload, len(payload), out, samples, fec)
        return ctypes.string_at(self._out, 2 * count) if count > 0 else b""
