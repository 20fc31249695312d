"""Texts of errors without the keys that may stand in them: a vendor's message goes to the log and on the record."""

import re

LONGEST = 300
"""Characters kept of an error's text."""

_SHORTEST_SECRET = 5
"""What is shorter is a placeholder that stands in ordinary words ("none") rather than a key."""

_KEY_LIKE = re.compile(
    r"""\b(?:sk|gsk|csk|tgp|pk|xai|AIza)[-_][\w*-]{4,}        # sk-proj-..., gsk_..., xai-...
    | \bkey[-_](?=[\w*-]*[\d*])[\w*-]{8,}                     # key_01ab..., but not key_not_found
    | \bAIza[\w-]{10,}                                        # Google
    | \bKEY[0-9A-F][\w-]{10,}                                 # Telnyx
    | \bBearer\s+\S+
    | \b(?:Token|Basic)\s+(?=[^\s]*\d)[\w.~+/=*-]{12,}        # other words of an Authorization header
    | \beyJ[\w-]{8,}\.[\w-]+\.[\w-]+                          # a signed token
    | (?<=://)[^\s/@:]+:[^\s/@]+(?=@)                         # user and password in a URL
    | (?<=[?&])(?:key|api_?key|token|access_token)=[^\s&"']+  # in a URL's query
    """,
    re.IGNORECASE | re.VERBOSE,
)


def scrubbed(text: object, *secrets: str) -> str:
    """`str(text)` on one line, at most `LONGEST` characters, with `***` for each of `secrets` and for whatever else
    looks like a key: vendors repeat a refused key in their errors, sometimes half masked."""
    said = " ".join(str(text).split())
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _SHORTEST_SECRET:
            said = said.replace(secret, "***")
    return _KEY_LIKE.sub("***", said)[:LONGEST]
