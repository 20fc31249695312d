"""Calls of an Asterisk: a Stasis application whose channels are legs, and the ways that their audio reaches us."""
