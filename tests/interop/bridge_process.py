"""A real `offhook serve` in a process of its own, with an echo agent: what the interoperability tests call."""

import os
import queue
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import own_group
from free_ports import free_port

START_S = 60.0
STOP_S = 40.0
WAIT_S = 30.0
"""Only limits, on machines that may be busy: an idle bridge starts in two seconds and stops at once."""

CONFIG = """\
data_dir: data
sip: {{listen: 127.0.0.1, port: {sip}, t1_ms: {t1_ms}{sip_more}}}
rtp: {{port_min: {rtp_min}, port_max: {rtp_max}}}
http: {{listen: 127.0.0.1, port: {http}}}
limits: {{clock_lateness_ms: 1000, drain_s: 30}}
agents:
  echo: {{kind: echo}}
{agents}
routes:
  - {{to: {route}, agent: echo}}
{routes}
{more}
"""
"""The lateness limit is out of the way: these tests are about signalling, on machines that may be busy."""


class BridgeProcess:
    """A bridge on 127.0.0.1 with its own data directory and free ports. Made ready by the constructor."""

    def __init__(
        self,
        folder: Path,
        *,
        t1_ms: int = 500,
        rtp_ports: int = 600,
        variables: Mapping[str, str] | None = None,
        sip: str = "",
        more: str = "",
        agents: Mapping[str, str] | None = None,
        calls_to: Sequence[str] = (),
        start_s: float = START_S,
    ) -> None:
        """`agents`: further ones, as YAML, each called by its name; `calls_to`: further routes, as YAML;
        `variables`: further values of the configuration, e.g. `OFFHOOK_RTP_MEDIA_TIMEOUT_S`, and passwords it
        names; `sip`: further settings of that section, as `, name: value`; `more`: further sections; `start_s`:
        how long it may take to be ready."""
        self.folder = folder
        self.sip_port = free_port()
        self.http_port = free_port()
        # Below the ports that the system gives out by itself. The pool passes over single ones that are taken.
        self.rtp_min = 2 * random.randrange(5000, 15000 - rtp_ports // 2)
        self.rtp_max = self.rtp_min + rtp_ports - 1
        folder.mkdir(parents=True, exist_ok=True)
        self._t1_ms = t1_ms
        self._agents = agents or {}
        self._calls_to = calls_to
        self.configure(sip=sip, more=more)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("OFFHOOK_")}
        self._environment = environment | dict(variables or {})
        self._lines: queue.Queue[str | None] = queue.Queue()
        self.said: list[str] = []
        """Every line of its output and its log."""
        self._process = own_group.start(
            [sys.executable, "-m", "bridge.cli", "serve", "-c", "conf.yaml"],
            cwd=folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self._wait_for_line("ready for calls", start_s)
        except BaseException:
            # A test's time may be up as well.
            self.kill()
            raise
        key = (folder / "data" / "api-key").read_text().strip()
        self._http = httpx.Client(
            base_url=f"http://127.0.0.1:{self.http_port}", headers={"X-API-Key": key}, timeout=30, trust_env=False
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def configure(self, *, sip: str = "", route: str = "echo", more: str = "") -> None:
        """Write the configuration; `reload` has a running bridge read it. `route`: the user that can be called."""
        text = CONFIG.format(
            sip=self.sip_port,
            http=self.http_port,
            rtp_min=self.rtp_min,
            rtp_max=self.rtp_max,
            t1_ms=self._t1_ms,
            sip_more=sip,
            route=route,
            agents="\n".join(f"  {name}: {settings}" for name, settings in self._agents.items()),
            routes="\n".join([*(f"  - {{to: {name}, agent: {name}}}" for name in self._agents), *self._calls_to]),
            more=more,
        )
        (self.folder / "conf.yaml").write_text(text)

    def reload(self) -> list[str]:
        """SIGHUP; what the bridge says until it has taken the configuration up, or refused it."""
        before = len(self.said)
        self._process.send_signal(signal.SIGHUP)
        ends = ("configuration reloaded", "configuration refused")
        self.wait_for(
            lambda: any(end in line for line in self.said[before:] for end in ends), WAIT_S, "end of a reload"
        )
        return self.said[before:]

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """What `offhook WORDS` says beside the running bridge."""
        process = self.start_command(*words)
        try:
            out, err = process.communicate(timeout=60)
        finally:
            own_group.kill(process.pid)
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def start_command(self, *words: str) -> subprocess.Popen[str]:
        """The same for a command that takes its time."""
        return own_group.start(
            [sys.executable, "-m", "bridge.cli", *words, "-c", "conf.yaml"],
            cwd=self.folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    # -- the API --------------------------------------------------------------------------------------------

    def calls(self, *, leg_id: str | None = None, live: bool | None = None) -> list[dict[str, Any]]:
        """Calls, newest first, all pages."""
        query: dict[str, Any] = {"limit": 200}
        if leg_id is not None:
            query["leg_id"] = leg_id
        if live is not None:
            query["live"] = live
        found: list[dict[str, Any]] = []
        while True:
            page = self._http.get("/api/calls", params=query).raise_for_status().json()
            found += page["calls"]
            if not page.get("next_cursor"):
                return found
            query["cursor"] = page["next_cursor"]

    def one_call(self, leg_id: str | None = None) -> dict[str, Any]:
        """The only call on record, or the only one with this SIP Call-ID. The record may come some time behind what a
        caller is told: a disk takes its time."""
        (found,) = self.wait_for(lambda: self.calls(leg_id=leg_id), WAIT_S, "call on record")
        call: dict[str, Any] = found
        return call

    def call(self, call_id: str) -> dict[str, Any]:
        """One call with its events."""
        found: dict[str, Any] = self._http.get(f"/api/calls/{call_id}").raise_for_status().json()
        return found

    def dial(self, to: str, *, timeout_s: float = 30, **more: Any) -> str:
        """The id of a call that the bridge makes."""
        response = self.try_dial(to, timeout_s=timeout_s, **more)
        assert response.status_code == 202, response.text
        call_id: str = response.json()["id"]
        return call_id

    def try_dial(self, to: str, **more: Any) -> httpx.Response:
        return self._http.post("/api/calls", json={"to": to, "agent": "echo", **more})

    def hang_up(self, call_id: str) -> None:
        response = self._http.delete(f"/api/calls/{call_id}")
        assert response.status_code == 204, response.text

    def try_hang_up(self, call_id: str) -> bool:
        """False if it has ended already."""
        return self._http.delete(f"/api/calls/{call_id}").status_code == 204

    def transfer(self, call_id: str, target: str, *, mode: str) -> None:
        response = self._http.post(f"/api/calls/{call_id}/transfer", json={"target": target, "mode": mode})
        assert response.status_code == 202, response.text

    def hold(self, call_id: str, *, on: bool = True) -> None:
        """Returns when the far party has agreed to it."""
        response = self._http.request("PUT" if on else "DELETE", f"/api/calls/{call_id}/hold")
        assert response.status_code == 204, response.text

    def bans(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._http.get("/api/bans").raise_for_status().json()["bans"]
        return found

    def trunks(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._http.get("/api/trunks").raise_for_status().json()["trunks"]
        return found

    def asterisks(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._http.get("/api/asterisk").raise_for_status().json()["asterisks"]
        return found

    def metrics(self) -> Mapping[str, float]:
        """The samples without labels."""
        text = self.metrics_text()
        return {name: float(value) for name, value in re.findall(r"^(\w+) (\S+)$", text, re.MULTILINE)}

    def metrics_text(self) -> str:
        return self._http.get("/metrics").raise_for_status().text

    # -- waiting --------------------------------------------------------------------------------------------

    def wait_until_ended(self, call_id: str, limit_s: float = WAIT_S) -> dict[str, Any]:
        """The call's record when it has ended."""
        return self.wait_for(
            lambda: (call := self.call(call_id))["state"] == "ended" and call, limit_s, "an ended call"
        )

    def wait_for_live(self, leg_id: str, limit_s: float = WAIT_S) -> str:
        """The id of the call with this SIP Call-ID, when it is up."""

        def up() -> str | None:
            return next(
                (c["id"] for c in self.calls(live=True) if c["leg_id"] == leg_id and c["state"] == "up"), None
            )

        return self.wait_for(up, limit_s, f"a live call {leg_id}")

    def wait_for_event(self, call_id: str, name: str, limit_s: float = WAIT_S) -> dict[str, Any]:
        """What the first event of this name has to tell."""

        def found() -> list[dict[str, Any]]:
            return [event for event in self.call(call_id)["events"] if event["name"] == name]

        data: dict[str, Any] = self.wait_for(found, limit_s, f"event {name} of call {call_id}")[0]["data"]
        return data

    def wait_for(self, probe: Callable[[], Any], limit_s: float, what: str) -> Any:
        """What `probe` gives as soon as it is true."""
        until = time.monotonic() + limit_s
        while not (found := probe()):
            assert time.monotonic() < until, f"no {what} within {limit_s} s; the bridge said:\n{self.tail()}"
            assert self._process.poll() is None, f"the bridge is gone, waiting for {what}:\n{self.tail()}"
            time.sleep(0.02)
        return found

    def wait_until_idle(self, limit_s: float = WAIT_S) -> None:
        """No call, no RTP stream, no port left in use."""
        empty = {"offhook_calls_live": 0.0, "offhook_rtp_streams": 0.0, "offhook_rtp_ports_in_use": 0.0}

        def idle() -> bool:
            metrics = self.metrics()
            return {name: metrics[name] for name in empty} == empty and not self.calls(live=True)

        self.wait_for(idle, limit_s, f"return to {empty}")

    # -- its process ----------------------------------------------------------------------------------------

    def open_files(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def threads(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/task").iterdir()))

    def terminate(self) -> None:
        """SIGTERM: drain and stop."""
        self._process.send_signal(signal.SIGTERM)

    def wait_for_exit(self, limit_s: float = STOP_S) -> int:
        """The exit code."""
        try:
            code = self._process.wait(limit_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the bridge did not stop within {limit_s} s:\n{self.tail()}") from None
        self._reader.join(5)
        return code

    def stop(self) -> None:
        """SIGTERM; it must end with 0 and without a traceback."""
        if self._process.poll() is None:
            self.terminate()
        self.expect_exit()

    def expect_exit(self) -> None:
        """Wait for the end that SIGTERM has begun: with 0 and without a traceback."""
        code = self.wait_for_exit()
        self._http.close()
        assert code == 0, f"exit code {code}:\n{self.tail()}"
        self.assert_no_crash()

    def assert_no_crash(self) -> None:
        crashed = [line for line in self.said if "Traceback" in line or "crashed" in line]
        assert not crashed, f"the bridge logged a crash:\n{self.tail(200)}"

    def kill(self) -> None:
        own_group.kill(self._process.pid)
        self._process.wait()

    def tail(self, lines: int = 40) -> str:
        return "".join(self.said[-lines:])

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.said.append(line)
            self._lines.put(line)
        self._lines.put(None)

    def _wait_for_line(self, wanted: str, limit_s: float) -> None:
        until = time.monotonic() + limit_s
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no {wanted!r} within {limit_s} s:\n{self.tail()}") from None
            assert line is not None, f"the bridge ended before {wanted!r}:\n{self.tail()}"
            if wanted in line:
                return


def send_garbage(ports: Sequence[int], datagrams: Sequence[bytes]) -> None:
    """Every datagram to every one of these ports of 127.0.0.1."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for port in ports:
            for data in datagrams:
                sock.sendto(data, ("127.0.0.1", port))
