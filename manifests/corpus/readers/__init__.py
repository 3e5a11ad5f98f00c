"""What a manifest lies in: its parts, and the fast readers of JSON lines and of Parquet.

corpus imports it. It imports of corpus what a row and its columns are, and addresses, storage and errors.
"""
