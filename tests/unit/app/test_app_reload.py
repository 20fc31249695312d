"""`offhook serve` reads its configuration again at SIGHUP; what is wrong with it is said, and the old one stays."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from free_ports import free_port

from bridge.cli import main

CONFIG = """\
data_dir: {folder}/data
sip: {{listen: 127.0.0.1, port: {sip}, allow_from: []}}
http: {{port: {http}}}
rtp: {{port_min: 45000, port_max: 45100}}
agents: {{echo: {{kind: echo}}}}
routes: [{{agent: echo}}]
{more}
"""


class Served:
    def __init__(self, folder: Path, process: asyncio.subprocess.Process) -> None:
        self.file = folder / "offhook.yaml"
        self.process = process
        self._folder = folder
        self._ports = (free_port(), free_port())

    def write(self, more: str) -> None:
        sip, http = self._ports
        self.file.write_text(CONFIG.format(folder=self._folder, sip=sip, http=http, more=more))

    async def until(self, wanted: str) -> str:
        """The line of its output that says so."""
        assert self.process.stderr is not None
        async with asyncio.timeout(30):
            while True:
                line = (await self.process.stderr.readline()).decode()
                assert line, f"it ended without saying {wanted!r}"
                if wanted in line:
                    return line

    async def reload(self, more: str, wanted: str) -> str:
        self.write(more)
        self.process.send_signal(signal.SIGHUP)
        return await self.until(wanted)


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[Served]:
    bridge = Served(folder, None)  # type: ignore[arg-type]  # started below, once it has its file
    bridge.write("trunks: [{name: first, networks: [10.0.0.0/8]}]")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OFFHOOK_")}
    bridge.process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bridge.cli", "serve", "-c", str(bridge.file)),
        env=environment,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        await bridge.until("ready for calls")
        yield bridge
    finally:
        bridge.process.terminate()
        await bridge.process.communicate()
    assert bridge.process.returncode == 0


async def test_trunks_are_reloaded_mistakes_are_told_and_restarts_asked_for(tmp_path: Path, capsys) -> None:
    async with served(tmp_path) as bridge:

        async def names() -> list[str]:
            assert await asyncio.to_thread(main, ["trunks", "-c", str(bridge.file)]) == 0
            return [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]]

        assert await names() == ["first"]
        two = "trunks: [{name: first, networks: [10.0.0.0/8]}, {name: second, networks: [192.0.2.0/24]}]"
        await bridge.reload(two, "configuration reloaded")
        assert await names() == ["first", "second"]

        line = await bridge.reload("trunks: [{name: second, netwroks: [192.0.2.0/24]}]", "configuration refused")
        assert "netwroks" in line
        line = await bridge.reload(
            "trunks: [{name: third, host: a.example, username: x, password_env: NOT_SET}]", "configuration refused"
        )
        assert "NOT_SET" in line
        bridge.write(two)
        assert await names() == ["first", "second"]

        line = await bridge.reload("store: {keep_days: 5}", "needs a restart")
        assert "store.keep_days" in line


async def test_of_many_wishes_for_a_reload_the_last_one_holds(tmp_path: Path, capsys) -> None:
    async with served(tmp_path) as bridge:
        for number in range(40):
            bridge.write(f"trunks: [{{name: t{number}, networks: [10.0.0.0/8]}}]")
            bridge.process.send_signal(signal.SIGHUP)
            await asyncio.sleep(0.02)
        count = 0
        last = ""
        while last != "t39":
            await bridge.until("configuration reloaded")
            count += 1
            assert await asyncio.to_thread(main, ["trunks", "-c", str(bridge.file)]) == 0
            last = capsys.readouterr().out.splitlines()[1].split()[0]
        assert count < 40, "those that came while one was under way are one"
