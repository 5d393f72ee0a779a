"""State on disk: SQLite and folders. Each store says what losing it costs."""
