"""Legs: one module a kind of telephony, all of one contract (`base`). They know no provider."""
