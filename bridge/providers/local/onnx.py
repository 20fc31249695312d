"""One-thread onnxruntime sessions, the form in which every engine of a worker runs."""

from pathlib import Path

import onnxruntime as ort

ERRORS_ONLY = 3


def open_session(path: Path) -> ort.InferenceSession:
    """Load a model. Threads of several sessions only fight each other for the cores: one each is fastest."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = ERRORS_ONLY
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
