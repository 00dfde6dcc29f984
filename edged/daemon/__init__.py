"""One process on one box: everything is started here, watched, and ended.

    app.py         what is started, in which order, and how it ends; read it first
    line.py        builds cameras and stations
    api.py         builds the Lookout for Vision API and its workers
    supervise.py   how models are hosted, and that those which should run do
    metrics.py     [metrics]: what is counted
    scrape.py      [metrics]: the page that shows it
    logs.py        [log]
    systemd.py     what systemd is told
    summary.py     what `edged run --json` prints at the end

The one room that knows the doors, the sinks and the data plane at once. It does no work of theirs.
"""
