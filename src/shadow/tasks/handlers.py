"""Which handler does which kind of job."""

from collections.abc import Mapping

from shadow.engine.worker import Handler
from shadow.tasks import kinds
from shadow.tasks.checkpointing import RollingBack
from shadow.tasks.ending import Archiving, CleaningUp, CleanupPolicy, Deleting, Freeing, Hibernating
from shadow.tasks.initialising import Initialising
from shadow.tasks.running import Running
from shadow.tasks.workshop import Workshop


def make_handlers(shop: Workshop, policy: CleanupPolicy) -> Mapping[str, Handler]:
    return {
        kinds.INITIALISE: Initialising(shop),
        kinds.RUN: Running(shop),
        kinds.ROLL_BACK: RollingBack(shop),
        kinds.HIBERNATE: Hibernating(shop),
        kinds.ARCHIVE: Archiving(shop),
        kinds.DELETE: Deleting(shop),
        kinds.FREE: Freeing(shop),
        kinds.clean_up_of(shop.tasks.host): CleaningUp(shop, policy),
    }
