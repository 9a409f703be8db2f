"""Pure wire code: splitting, observing, aggregating and shaping bytes. No I/O, no clock, no logging."""
