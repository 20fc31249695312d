"""What an Asterisk must have for what is configured: versions and modules."""

from typing import Any

import pytest

from bridge.asterisk.needs import context_needs, missing, needs, parse_version, version_problems
from bridge.asterisk.settings import AsteriskSettings, MediaKind

SHIPPED = [
    "app_stasis",
    "res_stasis",
    "res_stasis_answer",
    "res_stasis_snoop",
    "res_http_websocket",
    "res_ari_events",
    "res_ari_channels",
    "res_ari_bridges",
    "res_ari_asterisk",
    "res_ari_applications",
    "bridge_simple",
    "bridge_softmix",
    "res_timing_timerfd",
    "func_dialplan",
    "func_timeout",
    "res_musiconhold",
    "res_rtp_asterisk",
    "res_rtp_multicast",
    "chan_rtp",
    "codec_ulaw",
]


def settings(**changes: Any) -> AsteriskSettings:
    values = {"name": "pbx", "url": "http://127.0.0.1", "username": "offhook", "password_env": "P"}
    return AsteriskSettings(**(values | changes))


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("22.10.1+dfsg+~cs6.17.60671434-1", (22, 10, 1)),
        ("Asterisk 16.28.0~dfsg-0+deb11u4", (16, 28, 0)),
        ("certified/20.7-cert3", (20, 7, 0)),
        ("certified-18.9-cert5", (18, 9, 0)),
        ("20.7-cert5", (20, 7, 0)),
        ("GIT-master-abc123M", None),
        ("", None),
    ],
)
def test_versions_are_read_as_asterisk_writes_them(text: str, version: tuple[int, int, int] | None) -> None:
    assert parse_version(text) == version


@pytest.mark.parametrize(
    ("version", "kinds", "changes", "said"),
    [
        ((16, 28, 0), ("rtp",), {}, ""),
        ((16, 28, 0), ("rtp", "audiosocket"), {}, "media: audiosocket needs 18 or later"),
        ((17, 9, 4), ("audiosocket",), {"audiosocket": {"codec": "slin16"}}, "media: audiosocket needs 18 or later"),
        ((18, 0, 0), ("rtp", "audiosocket"), {}, ""),
        ((16, 5, 0), ("rtp",), {}, "no ExternalMedia"),
        ((13, 38, 3), ("audiosocket",), {}, "no ExternalMedia"),
        ((16, 28, 0), ("websocket",), {}, "this is 16.28.0: choose rtp"),
        (
            (18, 20, 0),
            ("websocket",),
            {},
            "media: websocket needs 20.16, 22.6 or later, and this is 18.20.0: choose rtp or",
        ),
        ((20, 15, 2), ("websocket",), {}, "media: websocket needs"),
        ((20, 16, 0), ("websocket",), {}, "set plain-text"),
        ((20, 16, 0), ("websocket",), {"websocket": {"control": "plain-text"}}, ""),
        ((22, 8, 0), ("websocket",), {}, ""),
        ((23, 0, 0), ("websocket",), {}, "set plain-text"),
        ((24, 0, 0), ("websocket",), {}, ""),
        ((22, 6, 0), ("audiosocket",), {"audiosocket": {"codec": "slin16"}}, "set slin"),
        ((22, 7, 0), ("audiosocket",), {"audiosocket": {"codec": "slin16"}}, ""),
    ],
)
def test_what_a_version_lacks_is_told_with_what_to_set(
    version: tuple[int, int, int], kinds: tuple[MediaKind, ...], changes: dict[str, Any], said: str
) -> None:
    problems = version_problems(version, settings(**changes), kinds)
    assert len(problems) == bool(said)
    assert said in "".join(problems)


def test_the_modules_of_a_plain_configuration_are_enough() -> None:
    assert missing(needs(settings(), ["rtp"]), [f"{name}.so" for name in SHIPPED]) == []


@pytest.mark.parametrize("module", SHIPPED)
def test_each_module_is_missed(module: str) -> None:
    (need,) = missing(needs(settings(), ["rtp"]), [name for name in SHIPPED if name != module])
    assert f"{module}.so" in need.shown


@pytest.mark.parametrize(
    ("kinds", "changes", "modules"),
    [
        (["audiosocket"], {}, {"res_audiosocket", "chan_audiosocket"}),
        (["websocket"], {}, {"chan_websocket", "codec_resample"}),
        (
            ["websocket"],
            {"websocket": {"connects": "asterisk", "codec": "alaw"}},
            {"chan_websocket", "res_websocket_client", "codec_alaw"},
        ),
        (["rtp"], {"rtp": {"codec": "g722"}}, {"codec_g722"}),
        (["rtp"], {"rtp": {"jitter_buffer": True}}, {"func_jitterbuffer"}),
        (["rtp"], {"recording": "asterisk"}, {"res_ari_recordings", "res_stasis_recording", "format_wav"}),
        (
            ["rtp"],
            {"ami": {"host": "127.0.0.1", "username": "o", "password_env": "P"}},
            {"func_devstate", "res_manager_devicestate", "app_queue"},
        ),
    ],
)
def test_what_is_configured_asks_for_its_modules(
    kinds: list[MediaKind], changes: dict[str, Any], modules: set[str]
) -> None:
    lacking = missing(needs(settings(**changes), kinds), SHIPPED)
    assert {need.modules[0] for need in lacking} == modules


def test_any_timing_module_will_do() -> None:
    others = [name for name in SHIPPED if not name.startswith("res_timing")]
    assert missing(needs(settings(), ["rtp"]), [*others, "res_timing_dahdi"]) == []


def test_contexts_that_are_there_need_what_they_call() -> None:
    assert {need.modules[0] for need in context_needs(True, True)} == {"app_queue", "app_amd"}
    assert context_needs(False, False) == []
