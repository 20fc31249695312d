"""Digest authentication, both sides (RFC 7616, RFC 3261 22, RFC 8760; RFC 2069 peers that know no qop)."""

import base64
import hashlib
import hmac
import re
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bridge.sip.errors import SipSyntaxError
from bridge.sip.grammar import is_token, quote, split_list, unquote
from bridge.sip.message import Request, Response
from bridge.sip.uri import Uri

Fields = list[tuple[str, str]]

_HASHES: Mapping[str, Callable[[bytes], "hashlib._Hash"]] = {"MD5": hashlib.md5, "SHA-256": hashlib.sha256}
_STRENGTH = ("MD5", "MD5-SESS", "SHA-256", "SHA-256-SESS")
"""What we compute, the weakest first."""

_ITEM = re.compile(r'(?:([^\s=,"]++)[ \t]++)?([^\s=,"]++)[ \t]*+=[ \t]*+("(?:[^"\\]++|\\.)*+"|[^\s",]*+)', re.S)
_NC = re.compile(r"[0-9A-Fa-f]{8}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

_HEADERS = {401: ("WWW-Authenticate", "Authorization"), 407: ("Proxy-Authenticate", "Proxy-Authorization")}

_STALE_IN_A_ROW = 3
"""A server that calls fresh nonces stale again and again is not answered for ever."""

_REPEATED_S = 32.0
"""How long after a request its retransmissions come (64 T1, RFC 3261 17): the same request again is no replay."""

_WINDOW = 64
"""How far nonce counts may be out of order: requests sent together may overtake each other."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What we answer a challenge with."""

    username: str
    password: str = field(repr=False)
    realm: str = ""
    """Only challenges for this realm are answered; "": any."""


@dataclass(frozen=True, slots=True)
class Secret:
    """What a server knows of a user."""

    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge of scheme Digest, as read."""

    realm: str
    nonce: str
    algorithm: str
    """As written, "" when absent (which means MD5)."""
    qop: tuple[str, ...]
    """Empty: the peer follows RFC 2069."""
    opaque: str | None
    stale: bool


def digest_response(
    algorithm: str,
    *,
    username: str,
    realm: str,
    password: str,
    method: str,
    uri: str,
    nonce: str,
    qop: str = "",
    nc: str = "",
    cnonce: str = "",
) -> str:
    """The `response` value in hexadecimal (RFC 7616 3.4.1; without `qop`: RFC 2069). KeyError: unknown algorithm."""
    compute = _HASHES[(algorithm.upper() or "MD5").removesuffix("-SESS")]

    def hashed(text: str) -> str:
        return compute(text.encode("utf-8", "replace")).hexdigest()

    ha1 = hashed(f"{username}:{realm}:{password}")
    if algorithm.upper().endswith("-SESS"):
        ha1 = hashed(f"{ha1}:{nonce}:{cnonce}")
    ha2 = hashed(f"{method}:{uri}")
    return hashed(f"{ha1}:{nonce}:{nc}:{cnonce}:{qop}:{ha2}" if qop else f"{ha1}:{nonce}:{ha2}")


def _parse(value: str) -> Iterator[dict[str, str]]:
    """The parameters of each Digest challenge or answer in one field value; other schemes are left out.

    Raises SipSyntaxError."""
    params: dict[str, str] | None = None
    for item in split_list(value):
        match = _ITEM.fullmatch(item)
        if match is None:
            if not is_token(item.partition(" ")[0]):
                raise SipSyntaxError("malformed authentication", value)
            # Another scheme, bare or with a token for its only parameter.
            if params is not None:
                yield params
            params = None
            continue
        if match[1]:
            if params is not None:
                yield params
            params = {} if match[1].lower() == "digest" else None
        if params is not None:
            params.setdefault(match[2].lower(), unquote(match[3]))
    if params is not None:
        yield params


def parse_challenges(values: Sequence[str]) -> list[Challenge]:
    """The Digest challenges in WWW-Authenticate or Proxy-Authenticate values; what can't be read is left out."""
    found = []
    for value in values:
        try:
            for params in _parse(value):
                if "nonce" in params and "realm" in params:
                    qop = params.get("qop", "").lower().replace(",", " ").split()
                    stale = params.get("stale", "").lower() == "true"
                    found.append(
                        Challenge(
                            params["realm"],
                            params["nonce"],
                            params.get("algorithm", ""),
                            tuple(qop),
                            params.get("opaque"),
                            stale,
                        )
                    )
        except SipSyntaxError:
            continue
    return found


# -- client -------------------------------------------------------------------------------------------------


def _repeatable(challenge: Challenge) -> bool:
    """Whether its words can stand in a header of ours: an escaped NUL or line break can't."""
    return not _CONTROL.search(challenge.realm + challenge.nonce + (challenge.opaque or ""))


def _strength(challenge: Challenge) -> int:
    """How strong a challenge is that we can answer; -1 for one we can't."""
    algorithm = challenge.algorithm.upper() or "MD5"
    if algorithm not in _STRENGTH or (challenge.qop and "auth" not in challenge.qop):
        return -1
    return _STRENGTH.index(algorithm)


@dataclass(slots=True)
class _Session:
    """Our use of one nonce."""

    challenge: Challenge
    cnonce: str
    used: int = 0
    stale_in_a_row: int = 0


class DigestClient:
    """Answers challenges for one account; remembers the nonces, of several realms and servers on one path."""

    def __init__(
        self, credentials: Credentials, *, make_cnonce: Callable[[], str] = lambda: secrets.token_hex(12)
    ) -> None:
        self.credentials = credentials
        self._make_cnonce = make_cnonce
        self._sessions: dict[tuple[str, str], _Session] = {}
        """By name of the answer's field and realm."""

    def answer(self, response: Response, request: Request) -> Fields | None:
        """Fields for the repetition of `request`, which got this 401 or 407. They are all it needs: they replace
        every Authorization and Proxy-Authorization that it has.

        None where nothing can be done: no challenge for our realm, an unknown algorithm, auth-int only, or our answer
        was refused (the nonce not stale, and not one used before)."""
        if response.status not in _HEADERS:
            return None
        asks, answers = _HEADERS[response.status]
        strongest: dict[str, Challenge] = {}
        for challenge in parse_challenges(response.headers.get_all(asks)):
            wanted = self.credentials.realm in ("", challenge.realm) and _repeatable(challenge)
            best = strongest.get(challenge.realm)
            if wanted and _strength(challenge) > (-1 if best is None else _strength(best)):
                strongest[challenge.realm] = challenge
        renewed = False
        for realm, challenge in strongest.items():
            renewed = self._renew(answers, realm, challenge, request) or renewed
        return self.preempt(request) if renewed else None

    def preempt(self, request: Request) -> Fields:
        """Fields for a new request, by the nonces that are known: empty before the first challenge."""
        return [(name, self._field(session, request)) for (name, _), session in self._sessions.items()]

    def _renew(self, answers: str, realm: str, challenge: Challenge, request: Request) -> bool:
        """Take up a challenge, unless it refuses what we have just said. Whether there is something new to say."""
        known = self._sessions.get((answers, realm))
        stale_in_a_row = 0
        if known is not None and (used := _use_of(known.challenge.nonce, request, answers)) is not None:
            if challenge.nonce == known.challenge.nonce:
                return False
            # A nonce may run out between requests, and not every server says so; one just given does not.
            if used <= 1:
                if not challenge.stale or known.stale_in_a_row >= _STALE_IN_A_ROW:
                    return False
                stale_in_a_row = known.stale_in_a_row + 1
        elif known is not None and known.challenge.nonce == challenge.nonce:
            # This request went out without: another one has meanwhile answered the same challenge.
            return True
        self._sessions[answers, realm] = _Session(challenge, self._make_cnonce(), 0, stale_in_a_row)
        return True

    def _field(self, session: _Session, request: Request) -> str:
        challenge, account = session.challenge, self.credentials
        session.used += 1
        qop = "auth" if challenge.qop else ""
        nc = f"{session.used & 0xFFFFFFFF:08x}"
        algorithm = challenge.algorithm
        response = digest_response(
            algorithm,
            username=account.username,
            realm=challenge.realm,
            password=account.password,
            method=request.method,
            uri=request.uri,
            nonce=challenge.nonce,
            qop=qop,
            nc=nc,
            cnonce=session.cnonce,
        )
        parts = [
            f"username={quote(account.username)}",
            f"realm={quote(challenge.realm)}",
            f"nonce={quote(challenge.nonce)}",
            f"uri={quote(request.uri)}",
            f'response="{response}"',
        ]
        if algorithm:
            parts.append(f"algorithm={algorithm}")
        if qop or algorithm.upper().endswith("-SESS"):
            parts.append(f'cnonce="{session.cnonce}"')
        if qop:
            parts += [f"qop={qop}", f"nc={nc}"]
        if challenge.opaque is not None:
            parts.append(f"opaque={quote(challenge.opaque)}")
        return "Digest " + ", ".join(parts)


def _use_of(nonce: str, request: Request, header: str) -> int | None:
    """The how-manieth use of a nonce `request` bears; None: it does not bear it. Without qop there is no count: 1."""
    for value in request.headers.get_all(header):
        try:
            for params in _parse(value):
                if params.get("nonce") == nonce:
                    nc = params.get("nc", "")
                    return int(nc, 16) if _NC.fullmatch(nc) else 1
        except SipSyntaxError:
            continue
    return None


# -- server -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DigestVerdict:
    """What a server makes of a request: `username` set lets it in, else it is to be answered as said."""

    username: str = ""
    status: int = 401
    reason: str = ""
    """Reason phrase of the answer, "" for the standard one."""
    headers: tuple[tuple[str, str], ...] = ()
    """Challenges for the answer."""
    why: str = ""
    """For the log: `no credentials`, `stale nonce`, `replayed`, `wrong password`, ..."""
    failed: bool = False
    """Someone tried and was wrong: to be counted against him. Not set for what happens to honest peers."""
    claimed: str = ""
    """The user that it said it was, also when that was wrong."""


@dataclass(slots=True)
class _Use:
    """How one nonce was used."""

    issued: int
    highest: int = 0
    seen: dict[int, tuple[bytes, float]] = field(default_factory=dict)
    """Nonce count to the request it came with, and when."""


class DigestServer:
    """Challenges requests, and checks the answers. Nonces are not stored but signed; only the use of those that
    somebody who knew a password has used is remembered, of `max_nonces` at most: beyond, the oldest run out early."""

    def __init__(
        self,
        realm: str,
        lookup: Callable[[str], Secret | None],
        *,
        algorithms: Sequence[str] = ("SHA-256", "MD5"),
        nonce_lifetime_s: float = 60.0,
        max_nonces: int = 10_000,
        key: bytes = b"",
    ) -> None:
        """`algorithms`: in the order of the challenges, the preferred first (RFC 8760 2.3). ValueError for an unknown
        one. `key` signs the nonces (random unless given)."""
        for algorithm in algorithms:
            if algorithm.upper() not in _STRENGTH:
                raise ValueError(f"unknown digest algorithm {algorithm!r}; known: {', '.join(_STRENGTH)}")
        self.realm = realm
        self.algorithms = tuple(algorithms)
        self._lookup = lookup
        self._lifetime_ms = int(nonce_lifetime_s * 1000)
        self._max_nonces = max_nonces
        self._key = key or secrets.token_bytes(32)
        self._uses: OrderedDict[str, _Use] = OrderedDict()
        self._void_until = -1
        """Nonces issued up to then (ms) have run out: their use may have been forgotten."""

    def challenge(self, now: float, *, stale: bool = False) -> tuple[tuple[str, str], ...]:
        """WWW-Authenticate fields, one for each algorithm."""
        nonce = self._nonce(int(now * 1000))
        end = ", stale=true" if stale else ""
        return tuple(
            (
                "WWW-Authenticate",
                f'Digest realm={quote(self.realm)}, nonce="{nonce}", algorithm={algorithm}, qop="auth"{end}',
            )
            for algorithm in self.algorithms
        )

    def is_answered(self, request: Request) -> bool:
        """Whether `request` bears an answer to a challenge of this realm, right or wrong."""
        ours = f"realm={quote(self.realm)}"
        return any(ours in value for value in request.headers.get_all("Authorization"))

    def check(self, request: Request, now: float) -> DigestVerdict:
        """Whether `request` bears the right answer to a challenge of ours."""
        try:
            answers = [params for value in request.headers.get_all("Authorization") for params in _parse(value)]
        except SipSyntaxError as error:
            return DigestVerdict(status=400, reason="Malformed Authorization", why=str(error), failed=True)
        ours = [params for params in answers if params.get("realm") == self.realm]
        if not ours:
            why = "credentials of another realm" if answers else "no credentials"
            return DigestVerdict(headers=self.challenge(now), why=why)
        return self._check(ours[0], request, now)

    def _check(self, params: Mapping[str, str], request: Request, now: float) -> DigestVerdict:
        username, uri, qop = params.get("username", ""), params.get("uri", ""), params.get("qop", "").lower()
        nonce, nc, cnonce = params.get("nonce", ""), params.get("nc", ""), params.get("cnonce", "")
        algorithm = (params.get("algorithm") or "MD5").upper()

        def bad(reason: str, why: str) -> DigestVerdict:
            return DigestVerdict(status=400, reason=reason, why=why, failed=True, claimed=username)

        if qop == "auth-int":
            return bad("Digest qop auth-int Is Not Supported", "auth-int, which was not offered")
        if qop not in ("", "auth") or (qop and (not _NC.fullmatch(nc) or not cnonce)):
            return bad("Malformed Authorization", f"qop {qop!r} with nc {nc!r}")
        if not username or not nonce or not params.get("response"):
            return bad("Incomplete Authorization", "no username, nonce or response")
        if not _same_destination(uri, request):
            return bad("Authorization Of Another Request", f"digest of {uri!r}, not of the Request-URI")
        if algorithm not in (name.upper() for name in self.algorithms):
            return DigestVerdict(
                headers=self.challenge(now), why=f"algorithm {algorithm}, which was not offered", claimed=username
            )
        issued = self._issued(nonce)
        secret = self._lookup(username)
        expected = digest_response(
            algorithm,
            username=username,
            realm=self.realm,
            # Reckoned for unknown users too: the time taken tells nothing of who exists.
            password=secret.password if secret is not None else "",
            method=request.method,
            uri=uri,
            nonce=nonce,
            qop=qop,
            nc=nc,
            cnonce=cnonce,
        )
        right = hmac.compare_digest(expected.encode(), params["response"].lower().encode("utf-8", "replace"))
        if issued is None:
            # Not signed by us, or before a restart: the answer may well be right, and is asked for again.
            why = "stale nonce (not of this run)" if right and secret is not None else "unknown nonce"
            return DigestVerdict(
                headers=self.challenge(now, stale=right and secret is not None),
                why=why,
                failed=not right or secret is None,
                claimed=username,
            )
        if secret is None or not right:
            why = "unknown user" if secret is None else "wrong password"
            return DigestVerdict(headers=self.challenge(now), why=why, failed=True, claimed=username)
        why = self._use(nonce, issued, int(nc, 16) if qop else 0, request, now)
        if why:
            return DigestVerdict(headers=self.challenge(now, stale=True), why=why, claimed=username)
        return DigestVerdict(username=username, status=200, claimed=username)

    def _use(self, nonce: str, issued: int, count: int, request: Request, now: float) -> str:
        """Note that a nonce was used for the `count`th time; "" or why that can't be (RFC 7616 3.4.5)."""
        now_ms = int(now * 1000)
        if now_ms - issued > self._lifetime_ms or issued <= self._void_until:
            return "stale nonce"
        use = self._uses.get(nonce)
        if use is None:
            self._make_room(now_ms)
            use = self._uses[nonce] = _Use(issued)
        seen = use.seen.get(count)
        this = _fingerprint(request)
        if seen is not None:
            return "" if seen[0] == this and now - seen[1] <= _REPEATED_S else "replayed"
        if count <= use.highest - _WINDOW:
            return "replayed"
        use.highest = max(use.highest, count)
        use.seen[count] = (this, now)
        for old in [n for n in use.seen if n <= use.highest - _WINDOW]:
            del use.seen[old]
        return ""

    def _make_room(self, now_ms: int) -> None:
        while self._uses:
            oldest = next(iter(self._uses.values()))
            expired = now_ms - oldest.issued > self._lifetime_ms
            if not expired and len(self._uses) < self._max_nonces:
                return
            if not expired:
                self._void_until = max(self._void_until, oldest.issued)
            self._uses.popitem(last=False)

    def _nonce(self, now_ms: int) -> str:
        head = now_ms.to_bytes(8, "big") + secrets.token_bytes(6)
        return base64.urlsafe_b64encode(head + self._sign(head)).decode()

    def _issued(self, nonce: str) -> int | None:
        """When (ms) we made a nonce; None: we did not."""
        try:
            raw = base64.urlsafe_b64decode(nonce.encode("ascii"))
        except ValueError:
            return None
        head, signature = raw[:14], raw[14:]
        if len(raw) != 30 or not hmac.compare_digest(signature, self._sign(head)):
            return None
        return int.from_bytes(head[:8], "big")

    def _sign(self, head: bytes) -> bytes:
        return hmac.digest(self._key, head + self.realm.encode(), "sha256")[:16]


def _fingerprint(request: Request) -> bytes:
    """What the retransmissions of a request have in common, and another request has not: not even the same one from
    another address, for Via was stamped with where it came from."""
    headers = request.headers
    text = f"{headers.get('Call-ID')}\n{headers.get('CSeq')}\n{headers.get('Via')}"
    return hashlib.blake2s(text.encode("utf-8", "replace"), digest_size=8).digest()


def _same_destination(uri: str, request: Request) -> bool:
    """Whether a digest's uri is for where the request goes: the same user. A proxy on the way may change the rest,
    and some peers (SIPp) name the domain alone: that an answer counts but once keeps it from being turned elsewhere.
    """
    if uri == request.uri:
        return True
    try:
        return Uri.parse(uri).user in ("", request.target.user)
    except SipSyntaxError:
        return False
