"""In: a command line's sources and config. Out: the finished folder, or what in it is wrong, mended."""
