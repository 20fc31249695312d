"""Google's Gemini: language models, speech to speech."""
