"""`offhook` commands beside a running bridge: what an operator types while a call is up."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from bridge_process import WAIT_S, BridgeProcess
from free_ports import free_port
from peer_program import installed
from sipp_run import Sipp

StartBridge = Callable[..., BridgeProcess]
RunSipp = Callable[..., Sipp]

TRUNK = """\
trunks:
  - {{name: desk, host: 127.0.0.1, port: {port}, transport: udp, trust_host: false, options_s: 0, calls: 5}}
"""
DEAD = """\
trunks:
  - {{name: dead, host: 127.0.0.1, port: {port}, transport: udp, options_s: 1}}
"""


def packets(file: Path) -> list[str]:
    """A line for each packet, as tcpdump reads it."""
    # By its standard input: it gives up the right to read other users' files.
    command = [installed("tcpdump", "tcpdump"), "-nn", "-vv", "-A", "-r", "-"]
    with file.open("rb") as data:
        done = subprocess.run(command, stdin=data, check=True, capture_output=True, text=True, errors="replace")
    assert "udp sum ok" in done.stdout
    assert "bad udp cksum" not in done.stdout
    return [" ".join(packet.split()) for packet in re.split(r"\n(?=\d\d:\d\d:\d\d\.)", done.stdout)]


def test_call_is_seen_by_trunks_trace_and_pcap(own_bridge: StartBridge, sipp: RunSipp) -> None:
    run = sipp("uas_until_bye", 9).wait_until_listening()
    bridge = own_bridge(more=TRUNK.format(port=run.port))
    call_id = bridge.dial("12345", trunk="desk")
    bridge.wait_for(lambda: bridge.call(call_id)["state"] == "up", WAIT_S, "answered call")
    leg_id = bridge.call(call_id)["leg_id"]

    file = bridge.folder / "call.pcap"
    capturing = bridge.start_command("trace", call_id, "--pcap", "call.pcap")
    # Half a second of RTP both ways.
    bridge.wait_for(lambda: file.exists() and file.stat().st_size > 50 * 200, WAIT_S, "packets in the capture")

    trunks = bridge.command("trunks")
    assert trunks.returncode == 0, trunks.stderr
    head, row = trunks.stdout.splitlines()
    assert head.split()[:2] == ["TRUNK", "STATE"]
    assert row.split()[:2] == ["desk", "unwatched"]
    assert "1/5" in row.split()

    for name in (call_id, leg_id):
        ladder = bridge.command("trace", name)
        assert ladder.returncode == 0, ladder.stderr
        steps = ["INVITE", "180 Ringing", "200 OK", "ACK"]
        assert re.search(".*".join(steps), ladder.stdout, re.DOTALL), ladder.stdout
        assert "BYE" not in ladder.stdout
    whole = bridge.command("trace", call_id, "--full").stdout
    assert f"Call-ID: {leg_id}" in whole
    assert "m=audio" in whole

    bridge.hang_up(call_id)
    run.finish()
    out, err = capturing.communicate(timeout=15)
    assert capturing.returncode == 0, err
    assert f"call.pcap: {file.stat().st_size} bytes" in out
    found = packets(file)
    hop = f"127.0.0.1.{bridge.sip_port} > 127.0.0.1.{run.port}: "
    for method in ("INVITE sip:12345@", "ACK sip:", "BYE sip:"):
        assert any(hop in packet and method in packet for packet in found), method
    media = [packet for packet in found if "length 172" in packet]
    ours = [p for p in media if bridge.rtp_min <= int(p.split("127.0.0.1.")[1].split()[0]) <= bridge.rtp_max]
    assert len(ours) > 20
    assert len(media) - len(ours) > 20
    # It is over, and still in memory.
    bridge.wait_until_ended(call_id)
    assert "BYE" in bridge.command("trace", call_id).stdout
    bridge.wait_until_idle()
    bridge.stop()
    gone = bridge.command("trunks")
    assert (gone.returncode, "no bridge answers" in gone.stderr) == (1, True)


def test_trunk_that_does_not_answer_is_seen(own_bridge: StartBridge) -> None:
    bridge = own_bridge(more=DEAD.format(port=free_port()))
    bridge.wait_for(lambda: bridge.trunks()[0]["state"] == "down", WAIT_S, "trunk that is down")
    shown = bridge.command("trunks")
    assert shown.returncode == 1
    assert shown.stdout.splitlines()[1].split()[:2] == ["dead", "down"]
    assert bridge.command("trace", "nothing@nowhere").returncode == 1
    bridge.stop()
