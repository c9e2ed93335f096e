"""The measuring method: timing, statistics, memory, the machine, records."""
