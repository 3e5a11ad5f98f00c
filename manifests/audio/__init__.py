"""Audio files: spans of them as samples, what their headers say, and whether they are whole.

corpus, sources and the packages above import it. It knows no manifest: of coat.manifests it imports addresses, storage
and errors.
"""
