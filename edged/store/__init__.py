"""What the API keeps on disk: rows, secrets, models, and where pictures are.

    database.py         the catalog's SQLite file: opening, migrations, transactions
    catalog.py          rows of projects, data sets, entries, tags, client tokens
    models.py           rows of models
    packaging_jobs.py   rows of packaging jobs
    buckets.py          what `s3://bucket/key` means here; the home of boto3
    credentials.py      access keys
    keyring.py          keys that encrypt models
    sealing.py          how models are encrypted
    bundle.py           a model as one signed file, and back
    private.py          files with secrets
    scratch.py          where decrypted files lie while they are worked on

Concrete classes, no protocol: tests use the real thing. Owns SQL and files, and none of the API's
rules. Nothing here knows the line.
"""
