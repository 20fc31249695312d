"""What Cartesia says when it can't or won't speak, as our errors."""

from bridge.providers.base import ProviderBusyError, ProviderError, ProviderUnavailableError


def failure(provider: str, status: int, said: str, *, key_from: str) -> ProviderError:
    """The error for a status, of HTTP or of a message on a socket (0: none); `said` is scrubbed."""
    told = f"({status}) {said}".strip() if status else said
    match status:
        case 401 | 403:
            return ProviderUnavailableError(provider, f"the key was refused: check {key_from}. {told}")
        case 402:
            return ProviderUnavailableError(provider, f"no credit left: {told}")
        case 404:
            return ProviderUnavailableError(provider, f"not found: check `voice` and the model. {told}")
        case 429 | 503:
            return ProviderBusyError(provider, f"takes no more at present: {told}")
    return ProviderError(provider, told or "it failed, and does not say why")
