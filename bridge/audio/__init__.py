"""Audio between the wire and the agent: frames, codecs, voice activity, playout, the media clock, recording."""
