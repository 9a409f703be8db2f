"""What an exchange was: one StreamRecord, and the log line and metrics made from it."""
