"""Keys and tenants: where they are kept, how they are issued, and the snapshot that is checked with."""
