"""An existing shop with Asterisk 16 and chan_sip, that takes Offhook in as `pbx/asterisk/install` says.

Debian's 16.28 has no AudioSocket and no voicemail. The world is as in `asterisk_shop`: it calls over SIP and RTP.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from asterisk_install import Suite
from asterisk_shop import AsteriskShop

MODULES = """
res_clioriginate res_sorcery_config res_sorcery_memory res_sorcery_astdb res_timing_timerfd pbx_config
res_pjproject res_pjsip res_pjsip_session res_pjsip_pubsub res_pjsip_sdp_rtp res_pjsip_endpoint_identifier_ip
res_pjsip_endpoint_identifier_user res_pjsip_caller_id res_pjsip_nat res_pjsip_rfc3326 res_pjsip_logger chan_pjsip
chan_sip res_rtp_asterisk res_rtp_multicast chan_rtp
res_http_websocket res_stasis res_stasis_answer res_stasis_playback res_stasis_recording res_stasis_snoop
res_stasis_device_state app_stasis res_ari_model res_ari res_ari_applications res_ari_asterisk res_ari_bridges
res_ari_channels res_ari_device_states res_ari_endpoints res_ari_events res_ari_playbacks res_ari_recordings
res_ari_sounds bridge_simple bridge_native_rtp bridge_softmix bridge_holding bridge_builtin_features
codec_ulaw codec_alaw codec_a_mu codec_g722 codec_gsm codec_resample format_pcm format_sln format_wav format_gsm
res_musiconhold app_amd app_dial app_exec app_mixmonitor app_playback app_queue app_stack app_userevent app_verbose
func_callerid func_channel func_curl func_devstate func_dialplan func_global func_hangupcause func_logic
func_strings func_timeout func_uri func_version res_curl
"""

SIP = """\
[general]
context=nowhere
allowguest=no
udpbindaddr=127.0.0.1:{port}

; The carrier.
[carrier-in]
type=peer
host=127.0.0.1
port={near_port}
insecure=port,invite
context=from-trunk
disallow=all
allow=ulaw
directmedia=no

; A phone that has no registration.
[desk]
type=peer
host=127.0.0.2
port={far_port}
defaultuser=desk
disallow=all
allow=ulaw
directmedia=no
"""

EXTENSIONS = """\
[general]
static=yes
writeprotect=no

[from-trunk]
exten => _X.,1,Goto(offhook,${EXTEN},1)

[phones]
exten => 700,1,Goto(offhook,${EXTEN},1)
exten => 701,1,Goto(offhook-sip,${EXTEN},1)

#include extensions_local.conf
"""

WORLD_PJSIP = """\
[near]
type=transport
protocol=udp
bind=127.0.0.1:{near_port}

[far]
type=transport
protocol=udp
bind=127.0.0.2:{far_port}

[shop]
type=endpoint
transport=near
context=world
disallow=all
allow=ulaw
direct_media=no
aors=shop
[shop]
type=aor
contact=sip:127.0.0.1:{port}

[world]
type=endpoint
transport=far
context=world
disallow=all
allow=ulaw
direct_media=no
[world]
type=identify
endpoint=world
match=127.0.0.1
"""


class Asterisk16(AsteriskShop):
    """See `AsteriskShop`; `SIP/desk` is its phone."""

    suite: Suite = "bullseye"
    world_pjsip = WORLD_PJSIP

    def _install(self) -> None:
        files = {
            "modules.conf": "[modules]\nautoload=no\n"
            + "".join(f"load = {name}.so\n" for name in MODULES.split())
            + "#include modules_local.conf\n",
            "http.conf": f"[general]\nenabled=yes\nbindaddr=127.0.0.1\nbindport={self.http_port}\n",
            "manager.conf": f"[general]\nenabled=yes\nbindaddr=127.0.0.1\nport={self.ami_port}\n",
            "rtp.conf": f"[general]\nrtpstart={self.rtp_min}\nrtpend={self.rtp_max}\n",
            "sip.conf": SIP.format(port=self.sip_port, near_port=self.near_port, far_port=self.far_port),
            "pjsip.conf": "#include pjsip_local.conf\n",
            "extensions.conf": EXTENSIONS,
            "queues.conf": "[general]\n[office]\nstrategy=ringall\njoinempty=unavailable,invalid,unknown\n",
        }
        for name, text in files.items():
            (self.etc / name).write_text(text)
        before = {path.name: path.read_bytes() for path in self.etc.glob("*.conf")}
        needed = re.findall(r"^  (\S+) needs (#include \S+)$", self._run_install(), re.MULTILINE)
        # It touched no file of the shop's.
        assert {path.name: path.read_bytes() for path in self.etc.glob("*.conf")} == before
        assert len(needed) == 4, needed
        for path, line in (*needed, (str(self.etc / "sip.conf"), "#include offhook/sip.conf")):
            with Path(path).open("a") as file:
                file.write(f"\n{line}\n")

    def _replaced(self) -> dict[str, Sequence[tuple[str, str, int]]]:
        return {
            "offhook/sip.conf": [("port=5070\n", f"port={self.offhook_sip_port}\n", 1)],
            "offhook/settings.conf": [("Set(OFFHOOK_SIP=PJSIP)", "Set(OFFHOOK_SIP=SIP)", 1)],
        }
