"""Providers of stt, llm and tts behind the contracts in `base`. They know neither calls nor legs."""
