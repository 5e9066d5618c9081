"""A consortium of three sites for the tests of kits."""

from datetime import UTC, datetime

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

CONSORTIUM = """
name = "sarcoma-2026"
[server]
host = "stsmm.example.org"
also = ["10.0.0.5"]
port = 9092
health_port = 9093
contact = "Ada <ada@example.org>, +31 71 000"
[policy]
min_cell_size = 7
rounds_a_day = 300
[[site]]
name = "leiden"
contact = "it@example.org"
[[site]]
name = "paris"
[[site]]
name = "oslo"
"""
