"""Telnyx: recognition, voices and models behind one key, its own and those of others that it carries."""
