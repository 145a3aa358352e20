"""What ssekit costs, measured on this machine: ``scripts/bench``, explained in docs/bench.md.

A bench is a module with a ``run(settings, results)``; `bench.__main__` lists them.  It starts
servers from `bench.subjects` on one core and the clients of ``load.c`` on another, takes figures
with `bench.measuring`, and leaves them in a `bench.results.Results`, which `bench.table` prints and
`bench.picture` draws.  Nothing here is imported by ssekit, and nothing here goes on after the run.
"""
