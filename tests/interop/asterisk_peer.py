"""Asterisk 22 with chan_pjsip as a PBX: its own configuration, controlled by its command line."""

import subprocess
from pathlib import Path

from asterisk_install import asterisk_command, asterisk_root
from free_ports import free_port, free_ports
from peer_program import PeerProgram
from tones import read_wav, tone_seconds

MODULES = """
res_clioriginate res_sorcery_config res_sorcery_memory res_sorcery_astdb res_timing_timerfd res_pjproject res_pjsip
res_pjsip_session res_pjsip_pubsub res_pjsip_sdp_rtp res_pjsip_endpoint_identifier_ip
res_pjsip_endpoint_identifier_user res_pjsip_authenticator_digest res_pjsip_outbound_authenticator_digest
res_pjsip_outbound_registration res_pjsip_registrar res_pjsip_caller_id res_pjsip_nat res_pjsip_refer
res_pjsip_dtmf_info res_pjsip_rfc3326 res_pjsip_diversion res_pjsip_header_funcs res_pjsip_dlg_options
res_pjsip_logger chan_pjsip res_rtp_asterisk res_srtp res_crypto bridge_simple bridge_native_rtp
bridge_softmix bridge_builtin_features codec_ulaw codec_alaw codec_a_mu codec_g722 codec_resample
codec_opus_open_source res_format_attr_opus format_wav format_pcm pbx_config app_dial app_echo app_playtones
app_mixmonitor app_transfer app_read app_senddtmf app_verbose app_stack app_waituntil func_channel
func_callerid func_hangupcause func_logic func_strings
"""

RTP_PORTS = 100

TONE_HZ = 523.0
"""What its extensions play, at a tenth of full scale or more."""

ASTERISK = """\
[directories]
astetcdir => {folder}
astmoddir => {root}/usr/lib/x86_64-linux-gnu/asterisk/modules
astdatadir => {root}/usr/share/asterisk
astvarlibdir => {folder}/var
astdbdir => {folder}/var
astkeydir => {folder}/var
astagidir => {folder}/var
astspooldir => {folder}/spool
astrundir => {folder}
astlogdir => {folder}/log
astcachedir => {folder}/var
[options]
documentation_language = en_US
nocolor = yes
"""

PJSIP = """\
[global]
type=global
user_agent=Asterisk

[udp]
type=transport
protocol=udp
bind=127.0.0.1:{port}

[tcp]
type=transport
protocol=tcp
bind=127.0.0.1:{port}

[bridge]
type=endpoint
context=calls
disallow=all
allow={codecs}
direct_media=no
rtp_symmetric=yes
force_rport=yes
rewrite_contact=yes
aors=bridge
dtmf_mode={dtmf}
media_encryption={media_encryption}
timers={timers}
timers_sess_expires={session_s}
timers_min_se=90
100rel={reliable}
send_pai=yes
trust_id_inbound=yes
{endpoint}

[bridge]
type=aor
contact=sip:127.0.0.1:{bridge_port}{contact}
max_contacts=4
qualify_frequency=0

[bridge]
type=identify
endpoint=bridge
match=127.0.0.1
"""

EXTENSIONS = """\
[general]
autofallthrough=yes

[calls]
exten => tone,1,Answer()
 same => n,MixMonitor({folder}/heard.wav,r({folder}/tone.wav))
 same => n,Playtones(523)
 same => n,Wait(60)
 same => n,Hangup()

exten => echo,1,Answer()
 same => n,Echo()

; A party of the PBX calls the bridge: the two are bridged, so that either can be transferred.
exten => calling,1,Dial(PJSIP/bridge/sip:echo@127.0.0.1:{bridge_port})

exten => early,1,Progress()
 same => n,Playtones(523)
 same => n,Wait(2)
 same => n,Answer()
 same => n,Wait(60)

exten => busy,1,Hangup(17)
exten => nobody,1,Hangup(1)
exten => ring,1,Ringing()
 same => n,Wait(60)

; A call that comes in and is sent on by REFER, as soon as it is answered.
exten => referring,1,Answer()
 same => n,Wait(0.5)
 same => n,Transfer(PJSIP/sip:tone@127.0.0.1:{port})
 same => n,Hangup()

exten => digits,1,Answer()
 same => n,Wait(0.5)
 same => n,SendDTMF(1590#,100,120)
 same => n,Wait(60)

exten => reading,1,Answer()
 same => n,Read(got,,4,,1,20)
 same => n,Verbose(0,got digits ${{got}})
 same => n,Hangup()
"""


class Asterisk:
    """One PBX. `endpoint` are further lines of the endpoint that the bridge is."""

    def __init__(
        self,
        folder: Path,
        *,
        bridge_port: int,
        port: int = 0,
        codecs: str = "ulaw",
        timers: str = "yes",
        session_s: int = 1800,
        dtmf: str = "rfc4733",
        media_encryption: str = "no",
        reliable: str = "yes",
        contact: str = "",
        endpoint: str = "",
    ) -> None:
        self.folder = folder
        self._bridge_port = bridge_port
        self.port = port or free_port()
        self._root = asterisk_root()
        for name in ("var/keys", "spool/recording", "log/cdr-csv"):
            (folder / name).mkdir(parents=True)
        rtp_min = free_ports(RTP_PORTS, rtp=True)
        rtp_max = rtp_min + RTP_PORTS - 1
        files = {
            "asterisk.conf": ASTERISK.format(folder=folder, root=self._root),
            "modules.conf": "[modules]\nautoload=no\n" + "".join(f"load = {name}.so\n" for name in MODULES.split()),
            "logger.conf": "[logfiles]\nconsole => notice,warning,error,verbose\n",
            "rtp.conf": f"[general]\nrtpstart={rtp_min}\nrtpend={rtp_max}\n",
            "pjsip.conf": PJSIP.format(
                port=self.port,
                bridge_port=bridge_port,
                codecs=codecs,
                timers=timers,
                session_s=session_s,
                dtmf=dtmf,
                media_encryption=media_encryption,
                reliable=reliable,
                contact=contact,
                endpoint=endpoint,
            ),
            "extensions.conf": EXTENSIONS.format(folder=folder, port=self.port, bridge_port=bridge_port),
            "indications.conf": "[general]\ncountry=us\n[us]\ndescription=x\nringcadence=2000,4000\n",
            "cdr.conf": "[general]\nenable=no\n",
        }
        for name, text in files.items():
            (folder / name).write_text(text)
        self.program = PeerProgram("Asterisk", self._command("-f", "-vvv"), folder)
        try:
            self.program.wait_for_line("Asterisk Ready")
        except BaseException:
            self.program.stop()
            raise

    def address(self, extension: str) -> str:
        return f"sip:{extension}@127.0.0.1:{self.port}"

    def cli(self, command: str) -> str:
        """What its command line says to `command`."""
        done = subprocess.run(
            self._command("-rx", command), check=False, capture_output=True, text=True, timeout=20, cwd=self.folder
        )
        return done.stdout

    def call(self, user: str, extension: str = "tone") -> None:
        """Call `user` at the bridge; when it answers, that is connected to the extension."""
        self.cli(
            f"channel originate PJSIP/bridge/sip:{user}@127.0.0.1:{self._bridge_port} extension {extension}@calls"
        )

    def call_from_a_party(self) -> None:
        """Have somebody who hears and plays what the extension `tone` does call `echo` at the bridge."""
        self.cli("channel originate Local/tone@calls extension calling@calls")

    def channels(self) -> int:
        return int(self.cli("core show channels count").split()[0])

    def heard_s(self, hz: float) -> float:
        """Seconds of a tone in what the extension `tone` heard so far."""
        path = self.folder / "heard.wav"
        if not path.exists() or path.stat().st_size <= 44:
            return 0.0
        return tone_seconds(*read_wav(path), hz)

    def stop(self) -> None:
        self.program.stop()

    def _command(self, *arguments: str) -> list[str]:
        return asterisk_command(self._root, ["-C", str(self.folder / "asterisk.conf"), *arguments])
