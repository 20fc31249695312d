"""Agents: what talks on a call. They know only the Leg contract and the provider contracts."""
