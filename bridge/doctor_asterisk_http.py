"""What `offhook doctor` tries of an Asterisk by plain HTTP: that ARI answers and knows us, its version, its clock."""

import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from bridge.asterisk.ari_http import http_failure
from bridge.asterisk.ari_wire import authorization, rest_url
from bridge.asterisk.needs import NEWEST_MAJOR, parse_version, version_problems
from bridge.asterisk.settings import AsteriskSettings, MediaKind
from bridge.asterisk.tls import CertificateFileError, Trust, what_failed
from bridge.doctor_agents import Finding

ANSWER_S = 8.0
CLOCK_S = 3.0
"""A clock that is off by more is told of; HTTP's has whole seconds."""


async def reached(settings: AsteriskSettings, kinds: Sequence[MediaKind]) -> AsyncIterator[Finding]:
    """The first finding is ok if ARI answers and knows us."""
    what = f"Asterisk {settings.name}"
    begun = time.monotonic()
    encrypted = settings.url.startswith("https:")
    try:
        async with httpx.AsyncClient(
            verify=(settings.trust if encrypted else Trust(verify=False)).context(),
            trust_env=False,
            timeout=ANSWER_S,
        ) as client:
            answer = await client.get(
                rest_url(settings.url, "asterisk/info", {"only": "system"}),
                headers={"Authorization": authorization(settings.username, settings.password())},
            )
    except CertificateFileError as error:
        yield Finding("wrong", what, f"{error}: name a file of the authority (PEM)")
        return
    except (httpx.TransportError, httpx.InvalidURL, httpx.DecodingError) as error:
        yield Finding("wrong", what, f"{settings.url}: {_unreached(error, settings.url)}")
        return
    took_ms = (time.monotonic() - begun) * 1000
    version = ""
    match answer.status_code:
        case 200:
            try:
                version = str(answer.json()["system"]["version"])
            except (ValueError, KeyError, TypeError):
                yield Finding("wrong", what, f"{settings.url} answers, but not as Asterisk does: is the url right?")
                return
        case 401 | 403:
            yield Finding(
                "wrong",
                what,
                f"it refuses user {settings.username!r} or the password: compare them with [{settings.username}] in "
                "ari.conf (type = user, password = ...), and `asterisk -rx 'ari show users'`",
            )
            return
        case 404:
            yield Finding(
                "wrong",
                what,
                f"{settings.url} answers, but has no ARI: set enabled = yes in ari.conf, load res_ari.so and "
                "res_ari_asterisk.so; a prefix of http.conf belongs behind the url",
            )
            return
        case status:
            yield Finding("wrong", what, f"{settings.url}: HTTP {status}: see Asterisk's log")
            return
    yield Finding("ok", what, f"ARI knows user {settings.username!r} ({took_ms:.0f} ms)")
    if encrypted and not settings.verify:
        yield Finding(
            "note",
            f"{what}, certificate",
            "it is not checked: whoever gets in between can read the password and make calls. Name who vouches for "
            "it (ca), and take verify: false away",
        )
    for finding in _version(settings, version, kinds):
        yield finding
    yield _clock(settings, answer.headers.get("date", ""))


def _unreached(error: httpx.HTTPError | httpx.InvalidURL, url: str) -> str:
    if isinstance(error, httpx.TimeoutException):
        return f"no answer within {ANSWER_S:.0f} s: is the address right, and does a firewall let us through?"
    said = http_failure(error, url)
    if what_failed(error, ""):
        return (
            f"{said}. In http.conf set tlsenable = yes, tlsbindaddr, tlscertfile and tlsprivatekey; `asterisk -rx "
            "'http show status'` tells where it serves https"
        )
    return (
        f"{said}. In http.conf set enabled = yes, bindaddr and bindport to where we reach "
        "it (`asterisk -rx 'http show status'` tells), and let this machine through the firewall"
    )


def _version(settings: AsteriskSettings, text: str, kinds: Sequence[MediaKind]) -> list[Finding]:
    what = f"Asterisk {settings.name}, version"
    version = parse_version(text)
    shown = text.partition("+")[0]
    if version is None:
        return [Finding("note", what, f"{shown}: not a release; whether it has what is configured is seen below")]
    if problems := version_problems(version, settings, kinds):
        return [Finding("wrong", what, problem) for problem in problems]
    if version[0] > NEWEST_MAJOR:
        return [Finding("note", what, f"{shown}: newer than what Offhook is tested with ({NEWEST_MAJOR})")]
    return [Finding("ok", what, f"{shown} has media {', '.join(kinds)}")]


def _clock(settings: AsteriskSettings, date: str) -> Finding:
    what = f"Asterisk {settings.name}, clock"
    try:
        theirs = parsedate_to_datetime(date)
    except ValueError:
        return Finding("note", what, "it does not tell its time")
    if theirs.tzinfo is None:
        # HTTP's time is UTC, whether or not it is said.
        theirs = theirs.replace(tzinfo=UTC)
    # The header has no fractions: on the average it is half a second behind.
    off_s = (theirs - datetime.now(UTC)).total_seconds() + 0.5
    if abs(off_s) <= CLOCK_S:
        return Finding("ok", what, "it agrees with ours")
    ahead = "ahead of" if off_s > 0 else "behind"
    return Finding(
        "note", what, f"{abs(off_s):.0f} s {ahead} ours: records won't agree. Run an NTP client on both machines"
    )
