"""What `offhook doctor` tries of the way without ARI: where calls by AudioSocket come, and are announced."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from uuid import uuid4

from bridge.asterisk.settings import AUDIOSOCKET_PORT
from bridge.config import Config
from bridge.doctor_agents import Finding
from bridge.view import Api, ViewError, ask

CONNECT_S = 8.0


async def tried_audiosocket(config: Config, api: Api, bridge_runs: bool) -> AsyncIterator[Finding]:
    """`bridge_runs`: a bridge holds the data directory, and can be asked."""
    settings = config.audiosocket
    if not settings.trunk:
        return
    what = f"audiosocket {settings.trunk}"
    if not bridge_runs:
        yield Finding("note", what, "no bridge runs here: AudioSocket() fails, and the dialplan goes on")
        return
    port = settings.port or AUDIOSOCKET_PORT
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.listen, settings.listen)
    try:
        async with asyncio.timeout(CONNECT_S):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError) as error:
        yield Finding(
            "wrong",
            what,
            f"nobody listens on {host} port {port} ({error or 'no answer'}): a changed audiosocket section holds "
            "after a restart",
        )
    else:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        yield Finding("ok", what, f"the running bridge listens on {settings.listen} port {port}")
    # Asked for a call that there is not, it tells whether it takes any.
    try:
        answer = await asyncio.to_thread(ask, api, "GET", f"/api/audiosocket/{uuid4()}", (404,))
        code = answer.json()["error"]["code"]
    except (ViewError, ValueError, KeyError) as error:
        yield Finding("wrong", f"{what}, API", f"calls can't be announced: {error}")
        return
    if code == "no-such-call":
        yield Finding("ok", f"{what}, API", f"calls can be announced at {api.url}/api with the key of {api.data_dir}")
    else:
        yield Finding("wrong", f"{what}, API", "the running bridge takes no calls by AudioSocket yet: restart it")
