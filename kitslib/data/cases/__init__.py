"""KiTS on disk and in memory: find, read, check, split and export cases."""
