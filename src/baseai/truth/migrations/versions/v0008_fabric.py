"""Where a node hangs: rack and breaker, leaf and pod of the network."""

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing yet."""


def downgrade() -> None:
    raise NotImplementedError("restore a backup instead: history is not thrown away by a command")
