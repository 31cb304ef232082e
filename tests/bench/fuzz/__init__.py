"""Inputs that nobody thought of: every reader of bytes, and whole connections, fed with changed messages."""
