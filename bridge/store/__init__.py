"""The record: calls, turns and events in SQLite or PostgreSQL."""
