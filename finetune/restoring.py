"""Load again what a model server has lost, as when it was restarted.

Our own server and vLLM forget at their end what they were told to load. What should be loaded is
what was deployed and not unloaded by anybody. It is proved like the first time. docs/serve.md
"""

import logging
import time
from contextlib import suppress

from django.conf import settings

from finetune import activation, loading
from finetune.activation import ActivationRefused
from finetune.loading import LoadingFailed
from finetune.models import Adapter
from finetune.probe import ProbeError
from kb.backends import get_backend

logger = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 30.0, 900.0
TGI_WAIT_S = 5.0  # its supervisor goes on by itself


class Watch:
    """Looks at the server; after a failure with an adapter it waits longer each time."""

    def __init__(self) -> None:
        self._pauses: dict[str, float] = {}
        self._not_before: dict[str, float] = {}
        self._is_away = False

    def look(self) -> list[str]:
        """Give the names that are loaded again; what cannot be is logged."""
        try:
            lost = _lost()
        except LoadingFailed as error:
            if not self._is_away:
                logger.warning("nothing can be loaded again: %s", error)
            self._is_away = True
            return []
        self._is_away = False
        due = [each for each in lost if time.monotonic() >= self._not_before.get(each.name, 0)]
        return [adapter.name for adapter in due if self._is_back(adapter)]

    def _is_back(self, adapter: Adapter) -> bool:
        try:
            _bring_back(adapter)
        except (ActivationRefused, LoadingFailed, ProbeError) as error:
            logger.error("%s is not loaded and cannot be loaded again: %s", adapter, error)
            self._put_off(adapter.name)
            return False
        logger.warning("the model server had lost %s; it is loaded again", adapter)
        self._pauses.pop(adapter.name, None)
        return True

    def _put_off(self, name: str) -> None:
        pause = self._pauses.get(name, FIRST_PAUSE_S)
        self._not_before[name] = time.monotonic() + pause
        self._pauses[name] = min(2 * pause, LONGEST_PAUSE_S)


def _lost() -> list[Adapter]:
    """Give what should be loaded and is not, what speaks first. Raises LoadingFailed."""
    base = get_backend("GENERATOR").base_model
    wanted = Adapter.objects.filter(is_wanted=True, activations__deployment__base_model=base)
    # What is on its way is loaded by its activation.
    standing = wanted.exclude(activations__state__in=activation.UNDER_WAY).distinct()
    if not settings.MODEL_SERVER_URL or not (adapters := list(standing)):
        return []
    loaded = activation.loader().loaded()
    speaking = activation.speaking_names()
    lost = [adapter for adapter in adapters if adapter.name not in loaded]
    return sorted(lost, key=lambda adapter: (adapter.name not in speaking, adapter.pk))


def _bring_back(adapter: Adapter) -> None:
    """Load and prove; raises ActivationRefused, LoadingFailed or ProbeError with it unloaded."""
    activation.place(adapter)
    loader = activation.loader(wait_s=TGI_WAIT_S)
    loader.ensure_loaded(loading.Placed(adapter.name, str(activation.folder_of(adapter))))
    if settings.MODEL_SERVER_KIND == "tgi":
        return  # proved by its supervisor before it served
    try:
        report = activation.prove(adapter)
        if not report.passed:
            raise LoadingFailed(report.reason)
    except (LoadingFailed, ProbeError):
        with suppress(LoadingFailed):
            loader.unload(adapter.name)
        raise
