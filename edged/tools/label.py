"""`edged label`: the same as the API's LabelInspection, from the command line.

A small composition root: archive, catalog and buckets of a configuration. It may run beside the
daemon: the archive is only read, and the catalog takes one writer at a time, who waits at most
seconds; what it does is one transaction, which the daemon sees as soon as it is committed.
"""

from __future__ import annotations

from edged.config import Config
from edged.core.errors import NotConfigured, NotFound
from edged.core.protocols import Label, Labels
from edged.rest.labels import Desk
from edged.store.buckets import Buckets, S3Service
from edged.store.catalog import Catalog
from edged.store.database import Database
from edged.tools.replay import reader


def put(config: Config, id: str, wanted: Label) -> str:
    """Make an archived picture an entry of a data set; its source-ref. Raises as Labels does."""
    rest, state = config.rest, config.state
    if not state.catalog.exists():
        raise NotFound(
            f"{state.catalog}: there is no catalog of the API: add a [rest] section, run edged, "
            "and make a project and its data set."
        )
    root = (rest.buckets if rest else None) or state.buckets
    s3 = S3Service(rest.s3_endpoint, rest.s3_region) if rest and rest.s3 else None
    followed = {station.name: station.follows for station in config.all_stations}
    archive, database = reader(config), Database(state.catalog)
    database.open()
    try:
        catalog = Catalog(database)
        desk = Desk(catalog, Buckets(root, s3), config.quotas, archive, followed)
        return desk.label(id, wanted)
    finally:
        database.close()
        archive.close()


class LateLabels:
    """core.protocols.Labels for a door that opens before the API: `desk` is set once it is up.

    Within the daemon only the API's own desk may write its catalog: a second one in the same
    process would take the first one's locks away when it closes the file.
    """

    def __init__(self) -> None:
        self.desk: Labels | None = None

    def label(self, id: str, label: Label) -> str:
        """See core.protocols.Labels. Raises NotConfigured while the API is not up."""
        if self.desk is None:
            raise NotConfigured("The API is not up, which keeps the data sets: its log says why.")
        return self.desk.label(id, label)
