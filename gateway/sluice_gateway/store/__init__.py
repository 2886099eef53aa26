"""The gateway's database: SQLite by default, PostgreSQL by URL. Never on a request's way."""
