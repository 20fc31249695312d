"""A phone made with pyVoIP, as a program: registers, then calls or is called, and tells what happens line by line.

usage: pyvoip_phone.py PROXY_PORT SIP_PORT RTP_PORT USER PASSWORD NUMBER|answer SECONDS bye|wait"""

import math
import sys
import time

import numpy as np
from pyVoIP.VoIP import CallState, PhoneStatus, VoIPCall, VoIPPhone

HZ = 440.0
FRAME = 160
REGISTER_S = 30.0


def say(text: str) -> None:
    print(text, flush=True)


def share_of_tone(pcm: bytes) -> float:
    """How much of the energy of 8-bit unsigned PCM is the tone's."""
    samples = np.frombuffer(pcm, np.uint8).astype(float) - 128
    energy = float(np.sum(samples**2))
    if energy < len(samples) * 4:
        return 0.0
    wave_form = np.exp(-2j * np.pi * HZ * np.arange(len(samples)) / 8000)
    return float(2 * abs(np.sum(samples * wave_form)) ** 2 / len(samples) / energy)


def talk(call: VoIPCall, seconds: float) -> None:
    """Play the tone and listen for it, until it was heard for so long or the call ends."""
    tone = bytes(128 + round(60 * math.sin(2 * math.pi * HZ * n / 8000)) for n in range(8000))
    heard = 0.0
    sent = 0
    begun = time.monotonic()
    while call.state == CallState.ANSWERED and heard < seconds:
        while sent < (time.monotonic() - begun + 0.2) * 8000:
            call.write_audio(tone[sent % 8000 : sent % 8000 + 800])
            sent += 800
        time.sleep(0.1)
        heard += 0.1 * (share_of_tone(call.read_audio(800, blocking=False)) > 0.8)
    say(f"heard {heard:.1f}")


def main() -> None:
    proxy_port, sip_port, rtp_port, user, password, number, seconds, end = sys.argv[1:]
    incoming: list[VoIPCall] = []
    phone = VoIPPhone(
        "127.0.0.1",
        int(proxy_port),
        user,
        password,
        myIP="127.0.0.1",
        callCallback=incoming.append,
        sipPort=int(sip_port),
        rtpPortLow=int(rtp_port),
        rtpPortHigh=int(rtp_port) + 20,
    )
    phone.start()
    until = time.monotonic() + REGISTER_S
    while phone.get_status() != PhoneStatus.REGISTERED and time.monotonic() < until:
        time.sleep(0.05)
    say(f"status {phone.get_status().value}")
    if number == "answer":
        while not incoming:
            time.sleep(0.02)
        call = incoming[0]
        call.answer()
    else:
        # Its receiving loop starts a second after it has registered.
        time.sleep(1.1)
        call = phone.call(number)
        while call.state == CallState.DIALING:
            time.sleep(0.02)
    say(f"call {call.state.value}")
    talk(call, float(seconds))
    if end == "bye" and call.state == CallState.ANSWERED:
        call.hangup()
    while call.state == CallState.ANSWERED:
        time.sleep(0.02)
    say("over")
    phone.stop()


if __name__ == "__main__":
    main()
