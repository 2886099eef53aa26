"""The usage ledger: one row for every request that has ended, kept off the requests' way and over crashes."""
