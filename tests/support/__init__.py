"""What tests share: a running Edge, its log lines, and raw clients that misbehave."""
