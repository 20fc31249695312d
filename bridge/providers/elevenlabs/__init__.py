"""ElevenLabs: voices over a socket that holds several texts, or over HTTP; speech recognition."""
