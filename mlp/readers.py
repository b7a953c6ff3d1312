"""The readers of tables, by one name: what `mlp.read` and `mlp.read_table` are."""

from mlp.data.readers import Dataset, read
from mlp.data.table_files import read_table, write_table

__all__ = ["Dataset", "read", "read_table", "write_table"]
