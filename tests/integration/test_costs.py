"""From a price table to what a study has cost."""

from datetime import date
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.core.pricing import Prices
from hpo_service.dispatcher.loop import Dispatcher
from hpo_service.executors.fake import FakeExecutor
from hpo_service.storage.tables import Attempt
from tests.dispatching import loss_of, post_study, state_of, turn_until
from trainer.accounting.prices import PriceRow, PriceTable


def test_the_device_that_did_the_work_sets_the_price(sessions: sessionmaker[Session]) -> None:
    study_id = post_study(sessions, budget__max_trials=3)
    row = PriceRow(AcceleratorName="fake", AcceleratorCount=2, Price=7.2, effective_from=date(2026, 1, 1))
    fake = FakeExecutor(loss_of)
    prices = Prices(usd_per_gpu_hour=100.0, table=PriceTable("prices.csv", (row,)))
    dispatcher = Dispatcher(sessions, fake, snapshots=Path("/nonexistent"), prices=prices)
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "completed")
    with sessions() as session:
        costs = list(session.scalars(select(Attempt.cost_usd)))
    assert len(costs) >= 3
    # The fake executor says that each slice took a millisecond.
    assert costs == pytest.approx([0.001 * 3.6 / 3600] * len(costs))
