"""Files and batches."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_TIMES = (
    "in_progress_at",
    "finalizing_at",
    "completed_at",
    "failed_at",
    "expired_at",
    "cancelling_at",
    "cancelled_at",
)


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "files",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("id", "tenant", "key_id", "filename")),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("id", name="pk_files"),
    )
    op.create_index("ix_files_tenant_created_us", "files", ["tenant", "created_us"])
    op.create_index("ix_files_expires_at", "files", ["expires_at"])
    op.create_table(
        "batches",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("id", "tenant", "key_id")),
        sa.Column("holder", sa.Text()),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("endpoint", "input_file_id")),
        sa.Column("completion_window", sa.Text(), nullable=False),
        sa.Column("metadata", sa.Text()),
        sa.Column("results_lifetime_s", sa.Integer()),
        sa.Column("status", sa.Text(), nullable=False),
        *(sa.Column(name, sa.Text()) for name in ("model", "errors", "output_file_id", "error_file_id")),
        *(sa.Column(name, sa.Integer(), nullable=False) for name in ("total", "completed", "failed")),
        sa.Column("usage", sa.Text()),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        *(sa.Column(name, sa.BigInteger()) for name in _TIMES),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("lease_owner", sa.Text()),
        sa.Column("lease_until", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_batches"),
    )
    op.create_index("ix_batches_tenant_created_us", "batches", ["tenant", "created_us"])
    op.create_index("ix_batches_status", "batches", ["status"])


def downgrade() -> None:
    """Remove the tables."""
    op.drop_table("batches")
    op.drop_table("files")
