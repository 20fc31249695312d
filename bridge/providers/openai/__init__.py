"""OpenAI, and every server that speaks its protocols: language models, ears, voices, speech to speech."""
