"""baresip as a phone: a user agent with its own configuration, controlled over its TCP interface."""

import json
import socket
import threading
from pathlib import Path
from typing import Any

from free_ports import free_port, free_ports
from peer_program import PeerProgram, installed
from tones import read_wav, tone_seconds, write_tone

MODULES = Path("/usr/lib/baresip/modules")

CONFIG = """\
poll_method epoll
sip_listen 127.0.0.1:{sip_port}
net_interface 127.0.0.1
call_local_timeout 60
call_max_calls 8
audio_path {folder}
audio_source aufile,{folder}/tone.wav
audio_player aubridge,ear
audio_alert aubridge,bell
ausrc_srate {rate}
auplay_srate {rate}
ausrc_channels 1
auplay_channels 1
audio_txmode poll
ausrc_format s16
auplay_format s16
auenc_format s16
audec_format s16
audio_buffer 20-160
rtp_ports {rtp_min}-{rtp_max}
jitter_buffer_delay 2-10
rtp_stats no
statmode_default off
sip_verify_server no
snd_path {folder}/heard
module_path {modules}
module g711.so
module g722.so
module opus.so
module srtp.so
module aufile.so
module aubridge.so
module sndfile.so
module_tmp uuid.so
module_tmp account.so
module_app menu.so
module_app ctrl_tcp.so
ctrl_tcp_listen 127.0.0.1:{control_port}
{extra}
"""

RTP_PORTS = 32

RATES = {"PCMU/8000/1": 8000, "PCMA/8000/1": 8000, "G722/16000/1": 16000, "opus/48000/2": 48000}


class Baresip:
    """One phone. It plays `hz` as long as a call is up, and keeps what it hears."""

    def __init__(
        self,
        folder: Path,
        *,
        user: str = "phone",
        domain: str = "",
        codec: str = "PCMU/8000/1",
        answers: bool = True,
        hz: float = 440.0,
        account: str = "",
        transport: str = "",
        extra: str = "",
    ) -> None:
        """`account` are further parameters of the account, such as `;mediaenc=srtp-mand`."""
        self.port = free_ports(2)
        """Of UDP and TCP; TLS has the next one."""
        self.hz = hz
        self.folder = folder
        self._control_port = free_port()
        (folder / "heard").mkdir(parents=True)
        rate = RATES[codec]
        write_tone(folder / "tone.wav", hz=hz, rate=rate)
        rtp_min = free_ports(RTP_PORTS, rtp=True)
        (folder / "config").write_text(
            CONFIG.format(
                sip_port=self.port,
                folder=folder,
                rate=rate,
                rtp_min=rtp_min,
                rtp_max=rtp_min + RTP_PORTS - 1,
                modules=MODULES,
                control_port=self._control_port,
                extra=extra,
            )
        )
        via = f";transport={transport}" if transport else ""
        self.address = f"sip:{user}@{domain or f'127.0.0.1:{self.port}'}"
        answering = "auto" if answers else "manual"
        (folder / "accounts").write_text(
            f"<{self.address}{via}>;answermode={answering};audio_codecs={codec}"
            f"{account if 'regint' in account else ';regint=0' + account}\n"
        )
        (folder / "contacts").write_text("\n")
        self.program = PeerProgram("baresip", [installed("baresip", "baresip-core"), "-f", str(folder), "-v"], folder)
        self.events: list[dict[str, Any]] = []
        self._answers: list[dict[str, Any]] = []
        try:
            self.program.wait_for_line("baresip is ready")
            self._control = socket.create_connection(("127.0.0.1", self._control_port), timeout=20)
            self._control.settimeout(None)
        except BaseException:
            self.program.stop()
            raise
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def contact(self) -> str:
        """Where it can be called without a registrar."""
        return f"sip:phone@127.0.0.1:{self.port}"

    def command(self, command: str, params: str = "") -> dict[str, Any]:
        """Do what the interface's `command` does; its answer."""
        count = len(self._answers)
        text = json.dumps({"command": command, "params": params, "token": str(count)}).encode()
        self._control.sendall(b"%d:%b," % (len(text), text))
        answer: dict[str, Any] = self.program.wait_for(
            lambda: self._answers[count] if len(self._answers) > count else None, 20, f"answer to {command}"
        )
        assert answer["ok"], f"baresip refused {command} {params}: {answer}\n{self.program.tail()}"
        return answer

    def dial(self, target: str) -> None:
        self.command("dial", target)

    def wait_until_registered(self) -> None:
        self.program.wait_for_line("200 OK")

    def wait_for_event(self, kind: str, limit_s: float = 30, *, count: int = 1) -> dict[str, Any]:
        """The `count`th event of this kind, e.g. CALL_ESTABLISHED."""

        def found() -> dict[str, Any] | None:
            events = [event for event in list(self.events) if event.get("type") == kind]
            return events[count - 1] if len(events) >= count else None

        event: dict[str, Any] = self.program.wait_for(found, limit_s, f"{kind} {count}")
        return event

    def wait_until_heard(self, seconds: float, *, hz: float | None = None, limit_s: float = 30) -> None:
        """Until it has heard this tone (its own unless given) for so long, in all calls."""
        self.program.wait_for(
            lambda: self.heard_s(hz) >= seconds, limit_s, f"{seconds} s of a tone of {hz or self.hz} Hz"
        )

    def heard_s(self, hz: float | None = None) -> float:
        """Seconds of a tone (its own unless given) in what it heard so far."""
        total = 0.0
        for path in (self.folder / "heard").glob("*-dec.wav"):
            if path.stat().st_size > 44:
                total += tone_seconds(*read_wav(path), hz or self.hz)
        return total

    def said_s(self) -> float:
        """Seconds that it has sent so far, in all calls."""
        total = 0.0
        for path in (self.folder / "heard").glob("*-enc.wav"):
            if path.stat().st_size > 44:
                samples, rate = read_wav(path)
                total += len(samples) / rate
        return total

    def stop(self) -> None:
        self.program.stop()
        self._control.close()
        self._reader.join(5)

    def _read(self) -> None:
        """Netstrings of JSON: events, and answers to commands."""
        buffer = b""
        while True:
            try:
                data = self._control.recv(65536)
            except OSError:
                return
            if not data:
                return
            buffer += data
            while b":" in buffer:
                length, _, rest = buffer.partition(b":")
                size = int(length)
                if len(rest) < size + 1:
                    break
                message = json.loads(rest[:size])
                (self.events if message.get("event") else self._answers).append(message)
                buffer = rest[size + 1 :]
