"""The embedded engines: speech to text, text to speech, embeddings and the deterministic brain, offline on CPU."""
