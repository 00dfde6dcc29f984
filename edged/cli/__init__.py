"""The command line: parses, hands over to a tool or the daemon, prints.

main.py       the commands, and how an error becomes a sentence and an exit code
keys.py       access keys, encryption keys, packages
archive.py    replay and label
output.py     reports and the progress bar
__main__.py   `python -m edged.cli`
"""
