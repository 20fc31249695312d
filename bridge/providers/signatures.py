"""`ToolCall.signature`: what a model thought before a call, for the provider that it came from and no other."""

from bridge.providers.base import ToolCall

_END = "\n"


def signed(provider: str, opaque: str) -> str:
    """`opaque` as a signature that only `provider` (an entry of the configuration) takes back."""
    return f"{provider}{_END}{opaque}"


def signature_for(provider: str, call: ToolCall) -> str:
    """What `provider` signed `call` with; empty if another did, or nobody."""
    owner, _, opaque = call.signature.partition(_END)
    return opaque if owner == provider else ""
