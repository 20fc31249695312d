"""Cartesia: voices over a socket that holds many contexts."""
