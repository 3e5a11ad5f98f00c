"""Tables, a row a record: JSON lines, CSV, Parquet, and what Hugging Face's `datasets` saved."""
