"""The command line ``ssekit``: a module or package for each command, and `ssekit.cli.main`.

A command writes what it was asked for to standard output and everything else to standard error.
"""
