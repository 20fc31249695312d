"""RTP: packets, jitter buffer, DTMF, ports and the session that binds them. Knows nothing of agents."""
