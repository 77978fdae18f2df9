"""What the tables of miners' predictions hold."""

from typing import Any

from sqlalchemy import select

from grid_node.predictions.tables import MinerDailyWager, MinerPrediction
from tests.miners import keypair
from tests.promises.desk import Desk

ANNA, BERT = keypair("anna"), keypair("bert")


def rows(desk: Desk) -> list[Any]:
    """Every verdict, by miner and seq."""
    columns = MinerPrediction.__table__
    query = select(columns).order_by(columns.c.miner, columns.c.seq)
    return list(desk.store.read(lambda tx: tx.execute(query).all()))


def wagered(desk: Desk) -> dict[str, tuple[int, int]]:
    """Cents and number of accepted predictions by UTC day, of the only miner there is."""
    found = desk.store.read(lambda tx: tx.execute(select(MinerDailyWager.__table__)).all())
    return {row.utc_day: (row.wagered, row.accepted) for row in found}
