"""Rows of the job processes."""

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from grid_node.database import Base


class ScoringDeath(Base):
    """How often a job process died while it scored these bytes; at DEATHS_MAX they are never scored again."""

    __tablename__ = "scoring_deaths"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    deaths: Mapped[int]
