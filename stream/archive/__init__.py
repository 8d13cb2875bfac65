"""The topics as Parquet files, each record in exactly one."""
