"""What ElevenLabs says when it can't or won't speak, as our errors. `protocols/tts.md` 1 and 2: forms and codes."""

from collections.abc import Mapping
from typing import Any

from bridge.providers.base import ProviderBusyError, ProviderError, ProviderUnavailableError
from bridge.providers.scrub import scrubbed

_KEY = ("invalid_api_key", "missing_permissions", "needs_authorization", "authentication", "unauthorized")
_CREDIT = ("quota_exceeded", "payment_required", "credit", "subscription")
_BUSY = ("too_many", "rate_limit", "busy", "concurrent", "max_active", "overloaded")
_VOICE = ("voice_not_found", "voice_does_not_exist", "invalid_voice", "voice_id_does_not_exist")
_MODEL = ("model_not_found", "unsupported_model", "invalid_model", "model_does_not_exist", "model_can_not")


def failure(provider: str, status: int, code: str, message: str, *, key_from: str, key: str) -> ProviderError:
    """The error for an HTTP `status` (0: it came on a socket) with ElevenLabs' own word `code` for it."""
    word = code.lower()
    said = scrubbed(f"{code}: {message}" if code and message else code or message, key)
    told = f"({status}) {said}".strip() if status else said
    # A spent quota comes with 401 too, so the word counts before the number.
    if any(part in word for part in _CREDIT) or status == 402:
        return ProviderUnavailableError(provider, f"no credit left, or not in the plan: {told}")
    if any(part in word for part in _BUSY) or status in (429, 503):
        return ProviderBusyError(provider, f"takes no more at present: {told}")
    if any(part in word for part in _VOICE):
        return ProviderUnavailableError(provider, f"it has no such voice: check `voice`. {told}")
    if any(part in word for part in _MODEL):
        return ProviderUnavailableError(provider, f"check providers.{provider}.tts.model. {told}")
    if any(part in word for part in _KEY) or status in (401, 403):
        return ProviderUnavailableError(provider, f"the key was refused: check {key_from}. {told}")
    if status == 404:
        return ProviderUnavailableError(provider, f"not found: check `voice`. {told}")
    return ProviderError(provider, told or "it failed, and does not say why")


def detail(body: Any) -> tuple[str, str]:
    """Code and message of an error's JSON body: `{"detail": {"status", "message"}}`, a list of what is wrong with the
    request, or a text."""
    found = body.get("detail", body) if isinstance(body, Mapping) else body
    if isinstance(found, Mapping):
        return str(found.get("status") or found.get("code") or ""), str(found.get("message") or "")
    if isinstance(found, list):
        wrong = [f"{item.get('loc')}: {item.get('msg')}" for item in found if isinstance(item, Mapping)]
        return "", "; ".join(wrong)
    return "", "" if found is None else str(found)
