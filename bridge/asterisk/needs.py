"""What an Asterisk must have for what is configured: its version and its modules."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from bridge.asterisk.settings import AsteriskSettings, MediaKind

Version = tuple[int, int, int]

OLDEST: Version = (16, 6, 0)
"""The first with ExternalMedia."""
NEWEST_MAJOR = 22
"""What Offhook is tested with up to."""

# The first versions that have it, by release line (protocols/asterisk.md).
WEBSOCKET: Mapping[int, Version] = {20: (20, 16, 0), 21: (21, 11, 0), 22: (22, 6, 0)}
AUDIOSOCKET: Version = (18, 0, 0)
WEBSOCKET_JSON: Mapping[int, Version] = {20: (20, 18, 0), 22: (22, 8, 0), 23: (23, 2, 0)}
AUDIOSOCKET_SLIN16: Mapping[int, Version] = {20: (20, 17, 0), 22: (22, 7, 0), 23: (23, 1, 0)}

_VERSION = re.compile(r"(?:^|[/ -])(\d{1,3})\.(\d+)(?:\.(\d+))?")

_CODEC_MODULES: Mapping[str, str] = {
    "ulaw": "codec_ulaw",
    "alaw": "codec_alaw",
    "g722": "codec_g722",
    "slin16": "codec_resample",
}


@dataclass(frozen=True, slots=True)
class Need:
    """Something that one of several modules gives."""

    modules: tuple[str, ...]
    """Without `.so`; any of them will do."""
    why: str
    must: bool = True
    """Without it calls fail; else a part is missing."""

    @property
    def shown(self) -> str:
        return " or ".join(f"{module}.so" for module in self.modules)


def parse_version(text: str) -> Version | None:
    """`22.10.1+dfsg`, `Asterisk 16.28.0~dfsg`, `certified/20.7-cert3`; None for a build without a number."""
    found = _VERSION.search(text)
    return None if found is None else (int(found[1]), int(found[2]), int(found[3] or 0))


def has(version: Version, since: Mapping[int, Version]) -> bool:
    """Whether a version has what came to each release line with the version given for it."""
    line = since.get(version[0])
    return version >= line if line is not None else version[0] > max(since)


def version_problems(version: Version, settings: AsteriskSettings, kinds: Collection[MediaKind]) -> list[str]:
    """What is configured and this version does not have."""
    shown = ".".join(map(str, version))
    if version < OLDEST:
        return [f"{shown} has no ExternalMedia: Offhook needs 16.6 or later"]
    problems = []
    if "websocket" in kinds and not has(version, WEBSOCKET):
        others = "rtp or audiosocket" if version >= AUDIOSOCKET else "rtp"
        problems.append(f"media: websocket needs 20.16, 22.6 or later, and this is {shown}: choose {others}")
    elif "websocket" in kinds and settings.websocket.control == "json" and not has(version, WEBSOCKET_JSON):
        problems.append(f"websocket.control: json needs 20.18, 22.8 or later, and this is {shown}: set plain-text")
    if "audiosocket" in kinds and version < AUDIOSOCKET:
        problems.append(f"media: audiosocket needs 18 or later, and this is {shown}: choose rtp")
    elif "audiosocket" in kinds and settings.audiosocket.codec == "slin16" and not has(version, AUDIOSOCKET_SLIN16):
        problems.append(f"audiosocket.codec: slin16 needs 20.17, 22.7 or later, and this is {shown}: set slin")
    return problems


def needs(settings: AsteriskSettings, kinds: Collection[MediaKind]) -> list[Need]:
    """The modules for what is configured; `kinds` are the media that calls may come by."""
    found = [
        Need(("app_stasis",), "the dialplan's Stasis()"),
        Need(("res_stasis",), "ARI"),
        Need(("res_http_websocket",), "the events of ARI"),
        Need(("res_ari_events",), "the events of ARI"),
        Need(("res_ari_channels",), "calls"),
        Need(("res_ari_bridges",), "calls"),
        Need(("res_ari_asterisk",), "to see the modules"),
        Need(("res_ari_applications",), "to see who has the application", must=False),
        Need(("res_stasis_answer",), "to answer a call"),
        Need(("bridge_simple",), "calls"),
        Need(("bridge_softmix",), "calls that are listened to, recorded, or joined by a third party"),
        Need(
            ("res_timing_timerfd", "res_timing_dahdi", "res_timing_pthread", "res_timing_kqueue"),
            "whatever runs by the clock: music on hold, recordings, calls of three",
        ),
        Need(("func_dialplan",), "to see whether the target of a transfer exists before the caller is let go"),
        Need(("func_timeout",), "callers to go on in the dialplan if Offhook dies", must=False),
        Need(("res_stasis_snoop",), "supervisors who listen, whisper and barge in", must=False),
        Need(("res_musiconhold",), "music while a tool runs long", must=False),
    ]
    for kind in sorted(kinds):
        found += _of_media(kind, settings)
    if settings.recording == "asterisk":
        found += [Need((module,), "recording: asterisk") for module in ("res_ari_recordings", "res_stasis_recording")]
        found.append(Need(("format_wav",), "recording: asterisk"))
    if settings.ami is not None:
        found.append(Need(("func_devstate",), "device states by AMI", must=False))
        found.append(Need(("res_manager_devicestate",), "changes of device states by AMI", must=False))
        found.append(Need(("app_queue",), "queues by AMI", must=False))
    return found


def context_needs(queue_context: bool, amd_context: bool) -> list[Need]:
    """The modules for contexts that are there."""
    found = []
    if queue_context:
        found.append(Need(("app_queue",), "the queue_context"))
    if amd_context:
        found.append(Need(("app_amd",), "the amd_context"))
    return found


def missing(wanted: Iterable[Need], running: Collection[str]) -> Sequence[Need]:
    """Those that no running module (with or without `.so`) gives."""
    names = {name.removesuffix(".so") for name in running}
    return [need for need in wanted if names.isdisjoint(need.modules)]


def _of_media(kind: MediaKind, settings: AsteriskSettings) -> list[Need]:
    modules: list[str]
    codec: str
    match kind:
        case "rtp":
            # chan_rtp does not load without res_rtp_multicast.
            modules, codec = ["res_rtp_asterisk", "res_rtp_multicast", "chan_rtp"], settings.rtp.codec
            if settings.rtp.jitter_buffer:
                modules.append("func_jitterbuffer")
        case "audiosocket":
            modules, codec = ["res_audiosocket", "chan_audiosocket"], settings.audiosocket.codec
        case "websocket":
            modules, codec = ["chan_websocket"], settings.websocket.codec
            if settings.websocket.connects == "asterisk":
                modules.append("res_websocket_client")
    found = [Need((module,), f"media: {kind}") for module in modules]
    if module := _CODEC_MODULES.get(codec):
        found.append(Need((module,), f"codec {codec}"))
    return found
