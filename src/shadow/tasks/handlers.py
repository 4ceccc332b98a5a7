"""Which handler does which kind of job."""

from collections.abc import Mapping

from shadow.engine.worker import Handler
from shadow.tasks import elsewhere, service
from shadow.tasks.checkpointing import RollingBack
from shadow.tasks.ending import Archiving, CleaningUp, CleanupPolicy, Deleting, Freeing, Hibernating
from shadow.tasks.initialising import Initialising
from shadow.tasks.running import Running
from shadow.tasks.workshop import Workshop


def make_handlers(shop: Workshop, policy: CleanupPolicy) -> Mapping[str, Handler]:
    return {
        service.INITIALISE: Initialising(shop),
        service.RUN: Running(shop),
        service.ROLL_BACK: RollingBack(shop),
        service.HIBERNATE: Hibernating(shop),
        service.ARCHIVE: Archiving(shop),
        service.DELETE: Deleting(shop),
        elsewhere.FREE: Freeing(shop),
        service.clean_up_of(shop.tasks.host): CleaningUp(shop, policy),
    }
