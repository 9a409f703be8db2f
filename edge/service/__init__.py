"""Edge and systemd: readiness, status and watchdog, and the units that run Edge.

In: a running Edge; an installation. Out: notifications; unit files. Must not: be needed where there is no systemd.
"""
