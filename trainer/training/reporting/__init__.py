"""What a run reports, and to whom: files, TensorBoard, trackers."""
