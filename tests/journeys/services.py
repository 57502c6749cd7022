"""One home for all journeys. The service is started again where a row wants another number of slots."""

import shutil
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from tests.consistency.place import Place
from tests.e2e.service import STUDY, Service

PAST = "past"


class JourneyService(Service):
    """`hpo up` whose one worker has so many slots."""

    slots = 1
    roots = ""

    def environment(self) -> dict[str, str]:
        """With the folder that users' files lie below."""
        made = super().environment()
        return made | {"HPO_SLOTS_PER_WORKER": str(self.slots), "HPO_ROOTS": f"{made['HPO_ROOTS']}:{self.roots}"}


class Journeys:
    """Owns the service and the folders of the stories."""

    def __init__(self) -> None:
        self.folder = Path(mkdtemp(prefix="hpo-journeys-"))
        self.folder.chmod(0o755)
        self.service = JourneyService(self.folder / "home")
        self.service.roots = str(self.folder)
        self._up = False
        self._place: Place | None = None

    def at(self, slots: int) -> tuple[JourneyService, Place]:
        """The service with so many slots, and where it is looked at."""
        if not self._up or self.service.slots != slots:
            self.end()
            self.service.slots = slots
            self.service.up()
            self._up = True
        if self._place is None:
            self._place = self.service.place()
            self._live_a_past()
        return self.service, self._place

    def _live_a_past(self) -> None:
        """An earlier study, that later ones may learn from."""
        search: dict[str, Any] = {"strategy": "asha", "sampler": "random", "seed": 2}
        with self.service.client() as client:
            client.create_study(STUDY | {"metadata": {"name": PAST}, "search": search})
        assert self.service.wait_for_end(PAST)["state"] == "completed"

    def end(self) -> None:
        """Stop the service; nothing is left of it."""
        if self._up:
            assert self.service.down() == 0
            assert self.service.processes("everything") == []
            self._up = False

    def remove(self) -> None:
        """Forget everything."""
        self.end()
        shutil.rmtree(self.folder, ignore_errors=True)
