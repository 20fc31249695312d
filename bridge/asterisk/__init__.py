"""Asterisk's interfaces: ARI, AMI, AudioSocket, the media WebSocket. No legs, no calls in here."""
