"""What the benchmarks share.

command.py       command lines, and what their helps say
figures.py       quantiles, ratios, and how they are printed
parts.py         rendered parts to train on and to look at, and a model of them
processes.py     the daemon, and a benchmark's own servers, in processes of their own
kill_daemon.py   the daemon of kill_table
"""
