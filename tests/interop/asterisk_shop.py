"""A real Asterisk 22 set up as an operator does it: the package's configuration, then `pbx/asterisk/install --fresh`.

What is shipped stays as it is but for the values in `_replaced`: addresses and ports. Beside it come the files that
belong to the operator (`*_local.conf`): the world that the tests call and are called from.

- A call from 127.0.0.1 to `sip:NUMBER@127.0.0.1:PORT` is the carrier's: it lands in the shipped context from-carrier.
- `PJSIP/NAME@carrier` reaches one of `WORLD`'s extensions over SIP and RTP, as a callee behind a carrier.
- `PJSIP/desk` is a phone of the shop that answers at once, `PJSIP/deaf` one that only rings.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from asterisk_install import Suite, asterisk_command, asterisk_modules, asterisk_root
from free_ports import free_port, free_ports
from peer_program import PeerProgram
from tones import read_wav, tone_seconds, write_tone

SHIPPED = Path(__file__).parents[2] / "pbx/asterisk"

RTP_PORTS = 400

TONE_HZ = 523.0
"""What the world's extensions play, at a tenth of full scale or more."""
MUSIC_HZ = 349.0
"""Its music on hold."""

ASTERISK = """\
[directories]
astetcdir => {folder}/etc
astmoddir => {modules}
astdatadir => {folder}/data
astvarlibdir => {folder}/var
astdbdir => {folder}/var
astkeydir => {folder}/var
astagidir => {folder}/var
astspooldir => {folder}/spool
astrundir => {folder}/run
astlogdir => {folder}/log
astcachedir => {folder}/var
[options]
documentation_language = en_US
nocolor = yes
"""

LOGGER = "[general]\ndateformat=%F %T.%3q\n[logfiles]\nconsole => notice,warning,error,verbose\n"

WORLD_MODULES = ("app_echo", "app_playtones", "app_read", "app_senddtmf")

WORLD_PJSIP = """\
[far]
type=transport
protocol=udp
bind=127.0.0.2:{far_port}

[near]
type=transport
protocol=udp
bind=127.0.0.1:{near_port}

[shop](offhook-carrier)
transport=near
context=world
aors=shop
[shop]
type=aor
contact=sip:127.0.0.1:{port}

[caller](offhook-carrier)
[caller]
type=identify
endpoint=caller
match=127.0.0.1

[carrier](offhook-carrier)
transport=far
aors=carrier
[carrier]
type=aor
contact=sip:127.0.0.1:{port}

[desk](offhook-phone)
transport=far
aors=desk
[desk]
type=aor
contact=sip:desk@127.0.0.1:{port}

[deaf](offhook-phone)
transport=far
aors=deaf
[deaf]
type=aor
contact=sip:ring@127.0.0.1:{port}

[world](offhook-carrier)
context=world
[world]
type=identify
endpoint=world
match=127.0.0.2
"""

WORLD = """\
[world]
; Each records what it hears as heard/NAME-CHANNEL.wav16 and plays the tone, where nothing else is said.
; Asterisk writes 32 kB at a time: at 16 kHz that is each second.
exten => tone,1,Answer()
 same => n,Gosub(world-hear,s,1(${{EXTEN}}))
 same => n,Playtones(523)
 same => n,Wait(600)
exten => desk,1,Answer()
 same => n,Gosub(world-hear,s,1(${{EXTEN}}))
 same => n,Playtones(523)
 same => n,Wait(600)

; As numbers, for what takes only numbers: 2000 plays the tone, 2001 echoes, 2002 is busy, 2003 rings.
exten => 2000,1,Goto(tone,1)
exten => 2001,1,Goto(echo,1)
exten => 2002,1,Goto(busy,1)
exten => 2003,1,Goto(ring,1)

exten => echo,1,Answer()
 same => n,Echo()

exten => silent,1,Answer()
 same => n,Gosub(world-hear,s,1(${{EXTEN}}))
 same => n,Wait(600)

exten => short,1,Answer()
 same => n,Wait(1)
 same => n,Hangup(16)

exten => late,1,Ringing()
 same => n,Wait(1)
 same => n,Goto(tone,1)

exten => early,1,Progress()
 same => n,Playtones(523)
 same => n,Wait(2)
 same => n,Goto(tone,1)

exten => busy,1,Hangup(17)
exten => nobody,1,Hangup(1)
exten => congestion,1,Hangup(34)
exten => refused,1,Hangup(21)
exten => ring,1,Ringing()
 same => n,Wait(600)

; A person says one word and waits, a machine talks on. Playtones sends silence as well, as real phones do.
exten => human,1,Answer()
 same => n,Playtones(0/500,523/600,0/600000)
 same => n,Wait(600)
exten => machine,1,Answer()
 same => n,Playtones(0/300,523/400,0/150,523/600,0/150,523/500,0/100,523/2000)
 same => n,Wait(600)

exten => digits,1,Answer()
 same => n,Wait(0.5)
 same => n,SendDTMF(1590#,100,120)
 same => n,Wait(600)

exten => reading,1,Answer()
 same => n,Read(got,,4,,1,20)
 same => n,Verbose(0,got digits ${{got}})
 same => n,Wait(600)

[world-calls]
exten => _[0-9+a-z].,1,Dial(PJSIP/${{EXTEN}}@shop,60,g)
 same => n,Verbose(0,world call ended ${{DIALSTATUS}} ${{HANGUPCAUSE}})
 same => n,Hangup()

[world-hear]
exten => s,1,Set(file=${{ARG1}}-${{UNIQUEID}}.wav16)
 same => n,MixMonitor({folder}/heard/mixed-${{file}},r({folder}/heard/${{file}}))
 same => n,Return()
"""


class AsteriskShop:
    """One PBX, running when the constructor returns.

    `dialplan`, `pjsip`, `queues`: further lines of extensions_local.conf, pjsip_local.conf, queues_local.conf
    (taken as they are). `offhook_sip_port`, `audiosocket_port`, `websocket_port`, `api_port`: where the bridge
    listens, for the ways that need to know. `secrets`: without, those that `install` made are
    taken away. `uncommented`: lines of shipped files that an operator makes active, as
    (file, the line without its semicolon). `replaced`: by file, (what stands there, what is wanted, how often).
    """

    username = "offhook"
    suite: Suite = "forky"
    world_pjsip = WORLD_PJSIP

    def __init__(
        self,
        folder: Path,
        *,
        offhook_sip_port: int = 0,
        audiosocket_port: int = 0,
        websocket_port: int = 0,
        api_port: int = 0,
        dialplan: str = "",
        pjsip: str = "",
        queues: str = "",
        secrets: bool = True,
        uncommented: Sequence[tuple[str, str]] = (),
        replaced: Mapping[str, Sequence[tuple[str, str, int]]] | None = None,
    ) -> None:
        self.folder = folder
        self.etc = folder / "etc"
        self._root = asterisk_root(self.suite)
        self.http_port = free_port()
        self.ami_port = free_port()
        self.sip_port = free_port()
        self.near_port, self.far_port = free_port(), free_port()
        self.rtp_min = free_ports(RTP_PORTS, rtp=True)
        self.rtp_max = self.rtp_min + RTP_PORTS - 1
        self.offhook_sip_port = offhook_sip_port or free_port()
        self.audiosocket_port = audiosocket_port or free_port()
        self.websocket_port = websocket_port or free_port()
        self.api_port = api_port or free_port()
        for name in ("var/keys", "spool/recording", "spool/voicemail", "log/cdr-csv", "run", "heard", "data/moh"):
            (folder / name).mkdir(parents=True)
        self._package()
        self._install()
        if not secrets:
            shutil.rmtree(self.etc / "offhook/secrets")
        for path, changes in {**self._replaced(), **(replaced or {})}.items():
            for old, new, count in changes:
                _replace(self.etc / path, old, new, count)
        for path, line in uncommented:
            _replace(self.etc / path, f"\n;{line}\n", f"\n{line}\n", 1)
        values = {
            "folder": folder,
            "port": self.sip_port,
            "near_port": self.near_port,
            "far_port": self.far_port,
        }
        (self.etc / "extensions_local.conf").write_text(WORLD.format(**values) + dialplan)
        (self.etc / "pjsip_local.conf").write_text(self.world_pjsip.format(**values) + pjsip)
        (self.etc / "modules_local.conf").write_text("".join(f"load = {name}.so\n" for name in WORLD_MODULES))
        (self.etc / "queues_local.conf").write_text(queues or "; none\n")
        self.program = self._start()

    @property
    def ari_url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def password(self) -> str:
        """Of ARI, as `install` made it."""
        return self._secret("ari.conf", "password = ")

    @property
    def ami_password(self) -> str:
        return self._secret("manager.conf", "secret = ")

    @property
    def rtp_range(self) -> range:
        return range(self.rtp_min, self.rtp_max + 1)

    def address(self, number: str = "700") -> str:
        """What a caller from the carrier calls, from 127.0.0.1."""
        return f"sip:{number}@127.0.0.1:{self.sip_port}"

    def cli(self, command: str) -> str:
        """What its command line says to `command`."""
        done = subprocess.run(
            self._command("-rx", command), check=False, capture_output=True, text=True, timeout=30, cwd=self.folder
        )
        return done.stdout

    def originate(self, channel: str, extension: str) -> None:
        """Have `channel` called (`PJSIP/tone@carrier`); when it answers, that goes to `EXTEN@CONTEXT`."""
        self.cli(f"channel originate {channel} extension {extension}")

    def call_in(self, number: str, far: str = "tone") -> None:
        """A caller of the world, who does what the extension `far` does once answered, calls the shop's `number`."""
        self.originate(f"Local/{far}@world/n", f"{number}@world-calls")

    def channels(self) -> list[str]:
        """Names of the live ones."""
        lines = self.cli("core show channels concise").splitlines()
        return [line.partition("!")[0] for line in lines if "!" in line]

    def bridges(self) -> list[str]:
        """Ids of the live ones."""
        return [line.split()[0] for line in self.cli("bridge show all").splitlines()[1:] if line.strip()]

    def calls_in(self, context: str) -> list[str]:
        """Extensions that channels are at in this context."""
        rows = (line.split("!") for line in self.cli("core show channels concise").splitlines())
        return [row[2] for row in rows if len(row) > 2 and row[1] == context]

    def assert_empty(self, limit_s: float = 20.0) -> None:
        """No channel and no bridge is left, within this time."""
        self.program.wait_for(
            lambda: not self.channels() and not self.bridges(), limit_s, "end of all channels and bridges"
        )

    def heard_s(self, name: str, hz: float = TONE_HZ) -> float:
        """Seconds of a tone in what the world's extension `name` heard so far, in all its calls."""
        found = 0.0
        for path in (self.folder / "heard").glob(f"{name}-*.wav16"):
            if path.stat().st_size > 44:
                found += tone_seconds(*read_wav(path), hz)
        return found

    def hang_up_all(self) -> None:
        self.cli("channel request hangup all")

    def problems(self) -> list[str]:
        """Warnings and errors that it wrote."""
        return [line.rstrip() for line in list(self.program.said) if "WARNING[" in line or "ERROR[" in line]

    def kill(self) -> None:
        """As if its power were cut."""
        os.kill(self.program.process.pid, signal.SIGKILL)
        self.program.process.wait()

    def start(self) -> None:
        """After `kill()` or `stop()`: the same one again."""
        self.program = self._start()

    def restart(self) -> None:
        self.stop()
        self.start()

    def stop(self) -> None:
        self.program.stop()

    def _package(self) -> None:
        """What Debian's package puts on a box."""
        self.etc.mkdir()
        for path in (self._root / "etc/asterisk").glob("*.conf"):
            (self.etc / path.name).write_bytes(path.read_bytes())
        share = self._root / "usr/share/asterisk"
        for path in share.iterdir():
            if path.name not in ("sounds", "moh"):
                (self.folder / "data" / path.name).symlink_to(path)
        (self.folder / "data/sounds").mkdir()
        (self.folder / "data/sounds/en").symlink_to(share / "sounds/en_US_f_Allison")
        write_tone(self.folder / "data/moh/music.wav", hz=MUSIC_HZ, rate=8000)
        values = {"folder": self.folder, "modules": asterisk_modules(self._root)}
        (self.etc / "asterisk.conf").write_text(ASTERISK.format(**values))
        (self.etc / "logger.conf").write_text(LOGGER)

    def _install(self) -> None:
        self._run_install("--fresh")

    def _run_install(self, *options: str) -> str:
        """What it says."""
        command = ["/bin/sh", str(SHIPPED / "install"), "--etc", str(self.etc), *options]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert done.returncode == 0, f"pbx/asterisk/install failed:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def _replaced(self) -> dict[str, Sequence[tuple[str, str, int]]]:
        """By file: what stands there, what the tests need there, how often it stands there."""
        return {
            "http.conf": [("bindport = 8088\n", f"bindport = {self.http_port}\n", 1)],
            "manager.conf": [("port = 5038\n", f"port = {self.ami_port}\n", 1)],
            "rtp.conf": [
                ("rtpstart = 10000\n", f"rtpstart = {self.rtp_min}\n", 1),
                ("rtpend = 19999\n", f"rtpend = {self.rtp_max}\n", 1),
            ],
            "pjsip.conf": [("\nbind = 0.0.0.0:5060\n", f"\nbind = 127.0.0.1:{self.sip_port}\n", 2)],
            "offhook/pjsip.conf": [("127.0.0.1:5070\n", f"127.0.0.1:{self.offhook_sip_port}\n", 2)],
            "offhook/websocket_client.conf": [("127.0.0.1:8787/", f"127.0.0.1:{self.websocket_port}/", 1)],
            "offhook/settings.conf": [
                ("=127.0.0.1:9092)", f"=127.0.0.1:{self.audiosocket_port})", 1),
                ("=http://127.0.0.1:8080/api)", f"=http://127.0.0.1:{self.api_port}/api)", 1),
            ],
        }

    def _secret(self, file: str, before: str) -> str:
        text = (self.etc / "offhook/secrets" / file).read_text()
        return next(line.removeprefix(before) for line in text.splitlines() if line.startswith(before))

    def _start(self) -> PeerProgram:
        program = PeerProgram("Asterisk", self._command("-f", "-vvv"), self.folder)
        try:
            program.wait_for_line("Asterisk Ready", 60)
        except BaseException:
            program.stop()
            raise
        return program

    def _command(self, *arguments: str) -> list[str]:
        return asterisk_command(self._root, ["-C", str(self.etc / "asterisk.conf"), *arguments])


def _replace(path: Path, old: str, new: str, count: int) -> None:
    text = path.read_text()
    assert text.count(old) == count, f"{path}: {old!r} is there {text.count(old)} times, not {count}"
    path.write_text(text.replace(old, new))
