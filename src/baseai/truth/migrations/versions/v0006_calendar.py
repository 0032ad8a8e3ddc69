"""The calendar: capacity that is reserved ahead, and maintenance that is planned."""

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing yet."""


def downgrade() -> None:
    raise NotImplementedError("restore a backup instead: history is not thrown away by a command")
