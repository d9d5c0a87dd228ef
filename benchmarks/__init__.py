"""Measures Ostler: ``python -m benchmarks`` (or ``make bench ARGS="start idle"``) prints a table.

Nothing here fails because of a time: a benchmark tells what it found beside what is aimed at. Machines are
noisy, so everything is measured several times, variants in turns, and medians are told.
"""
