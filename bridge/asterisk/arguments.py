"""The arguments that a dialplan hands a call over with: `Stasis(offhook,agent=sales,campaign=spring)`."""

from collections.abc import Iterable


def named_arguments(arguments: Iterable[str]) -> dict[str, str]:
    """By name in lower case; those without one are `arg1`, `arg2`, by their place. Of two with a name the last."""
    named: dict[str, str] = {}
    for index, argument in enumerate(arguments, 1):
        name, is_named, value = argument.partition("=")
        if is_named:
            named[name.strip().lower()] = value.strip()
        else:
            named[f"arg{index}"] = argument
    return named
