"""What an hour of a worker's device costs: HPO_PRICES, else HPO_USD_PER_GPU_HOUR."""

import logging
from datetime import UTC, datetime

from hpo_service.core.errors import SetupError
from hpo_service.core.settings import Settings
from trainer.accounting.prices import PriceError, PriceTable, read_prices

log = logging.getLogger(__name__)


class Prices:
    """Prices by the names of devices, as workers tell them. What the table does not know costs the flat price."""

    def __init__(self, usd_per_gpu_hour: float = 0.0, table: PriceTable | None = None) -> None:
        self._flat = usd_per_gpu_hour
        self._table = table
        self._said: set[str] = set()

    def usd_per_device_hour(self, device: str) -> float:
        """The price now; 0 if it is not known. Why the table has none is logged once."""
        if self._table is None or not device:
            return self._flat
        quote = self._table.quote(device, datetime.now(UTC))
        if quote.usd_per_device_hour is not None:
            return quote.usd_per_device_hour
        if quote.reason not in self._said:
            self._said.add(quote.reason)
            log.warning("%s; it counts %g USD an hour (HPO_USD_PER_GPU_HOUR)", quote.reason, self._flat)
        return self._flat


def load_prices(settings: Settings) -> Prices:
    """The prices that the settings name. Raises SetupError if the table cannot be used."""
    if settings.prices is None:
        return Prices(settings.usd_per_gpu_hour)
    try:
        return Prices(settings.usd_per_gpu_hour, read_prices(settings.prices.expanduser()))
    except PriceError as error:
        raise SetupError(f"HPO_PRICES: {error}") from error
