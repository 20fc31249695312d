"""By what else than our id, and the carrier's, a call is known: what an operator sees in a trace or on a console."""

from collections.abc import Mapping

SAME_CALL = ("call-id", "asterisk-channel", "asterisk-uniqueid")
"""What a leg has among its headers (`LegInfo`) where its carrier speaks SIP for it: the SIP Call-ID of the phone or
trunk behind an Asterisk, the name of its channel there, and that one's id where it is not the leg's."""


def other_names(headers: Mapping[str, str]) -> tuple[str, ...]:
    """Those of a leg with these headers."""
    return tuple(headers[name] for name in SAME_CALL if headers.get(name))
