"""Edge and systemd: telling it how Edge is, and the units that it runs Edge by.

In: a running Edge; an installation. Out: notifications; unit files. Must not: be needed where there is no systemd.
"""
