"""Deepgram: speech recognition (Nova and Flux), voices, and the Voice Agent."""
