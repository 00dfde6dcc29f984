"""Records that wait on disk for a far end that is away. Knows no protocol.

writer.py         in (Inbox) and to disk (Writer)
store.py          the file: a queue in SQLite, within its bounds
records.py        what goes in and comes out
send_order.py     which record goes next, and which may be forgotten
confirmation.py   receivers that confirm what they have processed
pace.py           how fast a backlog may follow an outage
bounds.py         how much may wait
uptime.py         the clock by which records age
disk_reserve.py   space held back for the moment when there is none
"""
