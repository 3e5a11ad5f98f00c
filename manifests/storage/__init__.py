"""Files by URL: local paths and object stores (S3, GCS, Azure) through one small set of functions.

`urls` names them, `files` reads and writes them, by `local` or by `remote`, whose driver (obstore), credentials and
errors are in `drivers`. Everything of coat may import it; it imports errors and processes alone.
"""

from coat.manifests.storage.files import (
    REQUESTS,
    exists,
    in_parallel,
    info,
    list_files,
    list_names,
    marked_stamps,
    no_access,
    open_stream,
    put_if_absent,
    read_bytes,
    read_json,
    read_many,
    read_range,
    read_ranges,
    read_stamped,
    remove,
    remove_folder,
    remove_if_empty,
    remove_tree,
    request,
    size,
    to_json,
    upload,
    write_bytes,
)
from coat.manifests.storage.info import FileInfo
from coat.manifests.storage.node_cache import read_once_a_node
from coat.manifests.storage.remote import object_store
from coat.manifests.storage.urls import PROTOCOLS, absolute, is_local, join, local_path, parent, protocol, resolve

__all__ = [
    "PROTOCOLS",
    "REQUESTS",
    "FileInfo",
    "absolute",
    "exists",
    "in_parallel",
    "info",
    "is_local",
    "join",
    "list_files",
    "list_names",
    "local_path",
    "marked_stamps",
    "no_access",
    "object_store",
    "open_stream",
    "parent",
    "protocol",
    "put_if_absent",
    "read_bytes",
    "read_json",
    "read_many",
    "read_once_a_node",
    "read_range",
    "read_ranges",
    "read_stamped",
    "remove",
    "remove_folder",
    "remove_if_empty",
    "remove_tree",
    "request",
    "resolve",
    "size",
    "to_json",
    "upload",
    "write_bytes",
]
